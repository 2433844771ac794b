"""`lratlas verify`: what is damaged or missing is named, and made again on request."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cheaper import workerless
from cli.helpers import Explored, Ran, assert_same_tables

pytestmark = pytest.mark.usefixtures("without_figures")

Run = Callable[..., Ran]


def test_a_study_as_it_was_written(study: Path, run: Run):
    ran = run("verify", study)
    assert (ran.code, ran.out, ran.err) == (0, "OK: all files match their checksums.\n", "")


def test_damage_is_named_and_made_again(study: Path, explored: Explored, run: Run):
    traces, weights = (min((study / name).iterdir()) for name in ("tables/traces", "checkpoints"))
    traces.write_bytes(traces.read_bytes()[:-9])
    weights.unlink()
    ran = run("verify", study)
    assert ran.code == 1
    assert ran.out.splitlines() == [
        f"{weights.relative_to(study)}: is missing",
        f"{traces.relative_to(study)}: was cut short or altered",
        "Faults: 2; fix with `lratlas verify --repair`.",
    ]
    assert [each["path"] for each in json.loads(run("verify", study, "--json").out)["faults"]] == [
        str(weights.relative_to(study)),
        str(traces.relative_to(study)),
    ]
    with workerless():
        repaired = run("verify", study, "--repair")
    assert repaired.code == 0
    assert repaired.out.splitlines()[-1] == "Faults: 2, made again; the faulty files are in damaged/."
    assert run("verify", study).code == 0
    assert_same_tables(study, explored)


def test_what_is_no_study_is_refused(tmp_path: Path, refused: Callable[..., str]):
    assert "There is no folder" in refused("verify", tmp_path / "nothing")
