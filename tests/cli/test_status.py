"""What `lratlas status` says besides the result."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from cli.helpers import Ran
from lratlas.atlas import Atlas, load

Run = Callable[..., Ran]


@pytest.fixture
def judged(study: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small study with verdicts of every kind."""
    rows = [("supported", "One holds."), ("contradicted", "One does not."), ("inconclusive", "One may.")]
    rows.append(("not measured", "Add it."))
    claims = pl.DataFrame(
        {
            "claim": ["a", "b", "c", "d", "e"],
            "verdict": [rows[at][0] for at in (0, 0, 1, 2, 3)],
            "effect": [0.5, 0.25, -0.5, None, None],
            "low": [0.25, 0.125, -0.75, None, None],
            "high": [0.75, 0.5, -0.25, None, None],
            "statement": [rows[at][1] for at in (0, 0, 1, 2, 3)],
        }
    )
    atlas = load(study)
    tables = {**atlas.tables, "claims": claims}
    monkeypatch.setattr(Atlas, "tables", tables)
    return study


def test_a_finished_study_ends_with_the_advice_and_the_count_of_verdicts(study: Path, run: Run):
    lines = run("resume", study).out.splitlines()
    assert [line for line in lines if line.startswith("→ Train with a constant ")]
    (count,) = [line for line in lines if line.startswith("Verdicts on the paper's claims: ")]
    assert count.endswith(f"`lratlas show {shlex.quote(str(study))} claims`")
    assert (
        sum(int(number) for number in re.findall(r"(\d+) (?:supported|contradicted|inconclusive|not measured)", count))
        == 11
    )


def test_verdicts_are_counted_and_told(judged: Path, run: Run):
    lines = run("status", judged).out.splitlines()
    at = lines.index("Verdicts: 2 supported, 1 contradicted, 1 inconclusive, 1 not measured")
    assert lines[at + 1 : at + 5] == [
        "✓ supported     a: One holds.",
        "✓ supported     b: One holds.",
        "✗ contradicted  c: One does not.",
        "? inconclusive  d: One may.",
    ]
    assert lines[at + 5].startswith("– not measured  e; ")
    assert not [line for line in lines if line.startswith("Of the paper's claims")]
    claims = json.loads(run("status", judged, "--json").out)["claims"]
    assert [row["claim"] for row in claims] == ["a", "b", "c", "d", "e"]
    assert (claims[2]["effect"], claims[3]["effect"]) == (-0.5, None)


def test_jobs_steps_regimes_and_the_advice_are_told(study: Path, run: Run):
    out = run("status", study).out
    assert "\nJobs: pretrain 1 of 1, finetune 1 of 1, geometry 1 of 1\nSGD steps: 232 of 232\n" in out
    assert f"\nRegimes: {load(study).regimes_in_short}\n" in out
    assert " a constant effective learning rate " in out
    advice = json.loads(run("status", study, "--json").out)["recommendation"]
    assert advice["low"] <= advice["lr"] <= advice["high"]
    assert advice["lr"] in (1e-3, 1e-1)


def test_the_time_left_is_told_while_there_is_training_to_do(study: Path, run: Run):
    for part in (study / "tables" / "runs").glob("finetune-*"):
        part.unlink()
    assert "\nSGD steps: 200 of 232; one process trains " in run("status", study).out
    for part in (study / "tables" / "runs").glob("*"):
        part.unlink()
    # Nothing has finished that could tell how long things take.
    ran = run("status", study)
    assert "\nSGD steps: 0 of 232\n" in ran.out
    state = json.loads(run("status", study, "--json").out)
    assert (state["rate"], state["seconds_left"], state["recommendation"]) == (None, None, None)


def test_the_answer_comes_first_with_its_evidence_then_boundaries_verdicts_jobs_and_versions(study: Path, run: Run):
    lines = run("status", study).out.splitlines()
    advised = load(study).recommendation
    assert advised is not None
    # Both PLRs end in models that were averaged and fine-tuned, each with one seed.
    assert lines[0].startswith(f"→ {advised.statement} (2 LRs compared, 1 seed each; next best 1e-")
    order = (
        "| boundary",
        "Regimes: ",
        "Verdicts: ",
        "– not measured",
        "tiny in ",
        "Jobs: ",
        "SGD steps: ",
        "Made with ",
    )
    places = [next(at for at, line in enumerate(lines) if line.startswith(begin)) for begin in order]
    assert places == sorted(places)


def test_while_a_study_is_unfinished_its_answer_is_one_so_far(study: Path, run: Run):
    for part in (study / "tables" / "runs").glob("finetune-*"):
        part.unlink()
    out = run("status", study).out
    assert out.startswith("→ So far: Train with ")
    assert "\nVerdicts, so far: " in out


def test_what_was_not_measured_is_one_line(study: Path, run: Run):
    lines = [line for line in run("status", study).out.splitlines() if line.startswith("– ")]
    claims = load(study).table("claims").filter(verdict="not measured")["claim"].to_list()
    assert len(lines) == 1
    assert all(claim in lines[0] for claim in claims)
