"""For each kind of file what is done when it is swapped, copied, deleted, linked or flipped."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from polars import DataFrame
from polars.testing import assert_frame_equal

from cheaper import undrawn, workerless
from lratlas import explore
from lratlas.api.explore import resume
from lratlas.atlas import load
from lratlas.cli.reading import verify
from lratlas.errors import StudyError
from lratlas.study.expected import ANALYSIS, WHOLE
from lratlas.study.store import Store
from lratlas.study.verify import faults
from lratlas.tables import SCHEMAS

pytestmark = pytest.mark.xdist_group("faults")  # the studies are made once

DOCS = Path(__file__).parents[2] / "docs" / "folder.md"
SPEC = """
name = "digits"
[task]
preset = "digits"
[pretrain]
lrs = [1e-3, 1e-2]
steps = 20
[finetune]
lrs = [1e-3, 1e-2]
steps = 10
{average}
[trace]
points = 4
[measure]
interpolation = 3
[training]
compile = false
strategy = "stack"
stack = 2
segment_steps = 10
"""
AVERAGE = "[average]\ncounts = [2]\nevery = 5"


ALTERED, MISSING, EXTRA = "was cut short or altered", "is missing", "belongs to no job of the plan"
EDITED, COPIED = "was edited since the study was planned", "is a copy of"
FOREIGN = "is of other runs than were planned"
NOTHING, HEALED, REFUSED = "nothing to do", "made again", "refused"

KINDS = {
    "plan": "plan.json",
    "its copy": "plan-copy.json",
    "spec": "spec.toml",
    "runs": "tables/runs/*",
    "traces": "tables/traces/*",
    "measurement": "tables/pairs/*",
    "weights": "checkpoints/*",
    "analysis": "tables/regimes/*",
    "note": "sittings/*",
}

# Kind and deed: what `verify` says, what `resume` does, and what `verify --repair` does.
CASES: dict[tuple[str, str], tuple[str, str, str]] = {
    ("plan", "flipped"): (ALTERED, HEALED, HEALED),
    ("plan", "deleted"): (MISSING, HEALED, HEALED),
    ("plan", "of another study"): ("is another study's", HEALED, HEALED),
    ("plan", "a link"): ("", NOTHING, NOTHING),
    ("its copy", "flipped"): (ALTERED, HEALED, HEALED),
    ("its copy", "deleted"): (MISSING, HEALED, HEALED),
    ("its copy", "of another study"): ("is not that of plan.json", HEALED, HEALED),
    ("spec", "flipped"): (EDITED, REFUSED, HEALED),
    ("spec", "deleted"): (MISSING, REFUSED, HEALED),
    ("spec", "of another study"): (EDITED, REFUSED, HEALED),
    ("spec", "a link"): ("", NOTHING, NOTHING),
    **{
        (kind, deed): row
        for kind in ("runs", "traces", "measurement", "weights")
        for deed, row in {
            "flipped": (ALTERED, HEALED, HEALED),
            "deleted": (MISSING, HEALED, HEALED),
            "swapped": (COPIED, HEALED, HEALED),
            "copied": (COPIED, HEALED, HEALED),
            "of a job that is not planned": (EXTRA, HEALED, HEALED),
            "a link": ("", NOTHING, NOTHING),
            "a link to nothing": (MISSING, HEALED, HEALED),
        }.items()
    },
    ("runs", "of another study"): (FOREIGN, HEALED, HEALED),
    ("weights", "of another study"): (FOREIGN, HEALED, HEALED),
    ("analysis", "flipped"): (ALTERED, HEALED, HEALED),
    ("analysis", "of another study"): (FOREIGN, HEALED, HEALED),
    ("analysis", "deleted"): ("", HEALED, NOTHING),
    ("note", "flipped"): (ALTERED, NOTHING, "set aside"),
    ("note", "deleted"): ("", NOTHING, NOTHING),
}


@dataclass(frozen=True)
class Files:
    """A study to be spoiled, the same as it was, another one of the same task, and a folder outside of all."""

    study: Path
    whole: Path
    other: Path
    outside: Path

    def names(self, kind: str) -> list[str]:
        """The files of a kind."""
        return sorted(str(path.relative_to(self.whole)) for path in self.whole.glob(KINDS[kind]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two finished studies, the second without averages; they share their pre-training runs."""
    root = tmp_path_factory.mktemp("faults")
    for name, average in (("whole", AVERAGE), ("other", "")):
        (root / f"{name}.toml").write_text(SPEC.format(average=average))
        with workerless(), undrawn():
            atlas = explore(root / f"{name}.toml", folder=root / name, notice=silent)
        for table in ANALYSIS:
            atlas.store.write_table(
                table, WHOLE, atlas.table(table), source=atlas.plan.spec_sha256 if atlas.plan else ""
            )
        atlas.store.write_text("report.html", "the page")
    return root


@pytest.fixture
def files(made: Path, tmp_path: Path) -> Files:
    shutil.copytree(made / "whole", tmp_path / "study")
    (tmp_path / "outside").mkdir()
    return Files(tmp_path / "study", made / "whole", made / "other", tmp_path / "outside")


def spoil(files: Files, kind: str, deed: str) -> set[str]:
    """Spoil a file of a kind, or two; the names of those that are not right any more."""
    name, *more = files.names(kind)
    if deed == "of another study":  # which has the same pre-training
        name = files.names(kind)[-1]
    path, data = files.study / name, (files.study / name).read_bytes()
    if deed == "flipped":
        at = data.index(b"steps = 20") + 9 if kind == "spec" else len(data) // 2
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    elif deed == "deleted":
        path.unlink()
    elif deed == "of another study":
        path.write_bytes((files.other / name).read_bytes())
    elif deed == "swapped":
        name_of_other = more[-1] if more else files.names("runs")[0]
        other = files.study / name_of_other
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
        return {name, name_of_other}
    elif deed == "copied":
        extra = path.with_name(f"extra-{path.name}")
        extra.write_bytes(data)
        return {str(extra.relative_to(files.study))}
    elif deed == "of a job that is not planned":
        store, extra = Store.open(files.study), f"extra-{path.stem}"
        if kind == "weights":
            store.write_weights(extra, {"run/weights/x": torch.ones(1)})
        else:
            table = path.parent.name
            store.write_table(table, extra, store.read_table(table, path.stem))
        return {str(path.with_name(f"{extra}{path.suffix}").relative_to(files.study))}
    else:
        kept = files.outside / path.name
        path.rename(kept)
        path.symlink_to(kept)
        if deed == "a link to nothing":
            kept.unlink()
    return {name}


def silent(_: str) -> None:
    """Nobody is to be told."""


def contents(folder: Path) -> dict[str, bytes]:
    """What a study holds, but for what was set aside."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "damaged" not in path.parts and path.name != "driver.lock"
    }


@cache
def tables_of(folder: Path) -> dict[str, DataFrame]:
    """The tables of a finished study that stays as it is, without times."""
    atlas = load(folder)
    return {name: atlas.table(name).drop("seconds", strict=False) for name in SCHEMAS}


def assert_as_it_was(files: Files) -> None:
    one, two, atlas = Store.open(files.study), Store.open(files.whole), load(files.study)
    assert faults(one) == []
    before, after = contents(files.whole), contents(files.study)
    unchanging = {name for name in before if not name.startswith(("tables/runs", "checkpoints", "sittings"))}
    assert {name for name in unchanging if before[name] != after.get(name)} == set()
    for table, right in tables_of(files.whole).items():
        assert one.parts(table) == two.parts(table)
        assert_frame_equal(atlas.table(table).drop("seconds", strict=False), right, check_exact=True)
    assert one.weights() == two.weights()
    for name in two.weights():
        old, new = two.read_weights(name), one.read_weights(name)
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old if key != "stack/seconds")


@pytest.mark.parametrize(("kind", "deed"), CASES)
def test_what_is_wrong_is_named_and_put_right(files: Files, kind: str, deed: str):
    what, resumed, _ = CASES[kind, deed]
    names = spoil(files, kind, deed)
    found = faults(Store.open(files.study))
    assert {each.path for each in found} == (names if what else set())
    assert all(each.what.startswith(what) for each in found)
    before = contents(files.study)
    with workerless(), reported():
        if resumed == REFUSED:
            with pytest.raises(StudyError, match=r"spec\.toml"):
                resume(files.study, notice=silent)
        else:
            resume(files.study, notice=silent)
    if resumed == HEALED:
        assert_as_it_was(files)
    else:
        assert contents(files.study) == before


@pytest.mark.parametrize(("kind", "deed"), [case for case, row in CASES.items() if row[2] != row[1]])
def test_repairing_does_what_resuming_does_not(files: Files, kind: str, deed: str):
    spoil(files, kind, deed)
    before = contents(files.study)
    with workerless(), reported():
        verify(str(files.study), repair=True)
    if CASES[kind, deed][2] == HEALED:
        assert_as_it_was(files)
    assert (contents(files.study) == before) == (CASES[kind, deed][2] == NOTHING)
    assert faults(Store.open(files.study)) == []


@contextmanager
def reported() -> Generator[None]:
    """Reports without a page."""
    with patch("lratlas.api.report.draw_charts"), patch("lratlas.api.report.write_files"):
        yield


def test_the_table_of_the_documentation_is_that_of_these_tests():
    rows = [
        f"| {kind} | {deed} | {what or '–'} | {resumed} | {repaired} |"
        for (kind, deed), (what, resumed, repaired) in CASES.items()
    ]
    text = DOCS.read_text(encoding="utf-8")
    assert [row for row in rows if row not in text] == []


@cache
def weights_of(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of every run of a finished study that stays as it is."""
    atlas = load(folder)
    return {run: atlas.model(run).state_dict() for run in atlas.table("runs")["run"]}


@pytest.mark.parametrize("deed", ["swapped", "of another study", "flipped", "deleted"])
def test_a_model_has_the_weights_of_its_run_or_there_is_none(files: Files, deed: str):
    spoil(files, "weights", deed)
    atlas, refused = load(files.study), list[str]()
    for run, right in weights_of(files.whole).items():
        try:
            found = atlas.model(run).state_dict()
        except StudyError as error:
            refused.append(str(error))
        else:
            assert all(torch.equal(right[name], found[name]) for name in right)
    assert refused
    assert all("checkpoints/" in said for said in refused)
