"""For each kind of file what is done when it is swapped, copied, deleted, linked or flipped."""

import os
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pytest
import torch
from polars import DataFrame
from polars.testing import assert_frame_equal

from cheaper import undrawn, workerless
from lratlas import explore
from lratlas.api.explore import resume
from lratlas.atlas import Atlas, load
from lratlas.cli.reading import verify
from lratlas.errors import StudyError
from lratlas.study.expected import ANALYSIS, WHOLE
from lratlas.study.plan import plan_text, read_stored_plan
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
FOREIGN = "contains other runs than the plan"
FORGED, FORGED_PLAN = "has values that the plan contradicts", "has runs with ids of other runs"
BLOCKED, NO_FOLDER = "is not a file: something else has its name", "is not a folder: a file has its name"
NOTHING, HEALED, REFUSED, ASIDE = "nothing to do", "made again", "refused", "set aside"

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
    "lock": "driver.lock",
    "page": "report.html",
}
FOLDERS = ("tables", "tables/runs", "tables/traces", "tables/pairs", "tables/regimes", "checkpoints", "sittings")
EMPTY = ("damaged", "failures", "figures", "measurements")
"""Folders that a study may have, and this one has not."""

# Kind and deed: what `verify` says, what `resume` does, and what `verify --repair` does.
CASES: dict[tuple[str, str], tuple[str, str, str]] = {
    ("plan", "flipped"): (ALTERED, HEALED, HEALED),
    ("plan", "deleted"): (MISSING, HEALED, HEALED),
    ("plan", "of another study"): ("belongs to another study", HEALED, HEALED),
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
    **{(kind, "forged and sealed"): (FORGED, HEALED, HEALED) for kind in ("runs", "traces", "measurement")},
    **{(kind, "with a row twice"): (FORGED, HEALED, HEALED) for kind in ("runs",)},
    ("plan", "forged and sealed"): (FORGED_PLAN, HEALED, HEALED),
    ("its copy", "forged and sealed"): (ALTERED, HEALED, HEALED),
    **{
        (kind, deed): (BLOCKED, REFUSED if kind == "spec" else HEALED, HEALED)
        for kind in ("plan", "its copy", "spec", "runs", "traces", "measurement", "weights", "analysis", "page")
        for deed in ("a folder", "a pipe")
    },
    **{("lock", deed): (BLOCKED, REFUSED, ASIDE) for deed in ("a folder", "a pipe", "a link", "a link to nothing")},
    **{(f"the folder {name}", "a file"): (NO_FOLDER, HEALED, HEALED) for name in (*FOLDERS, *EMPTY)},
    ("runs", "of another study"): (FOREIGN, HEALED, HEALED),
    ("weights", "of another study"): (FOREIGN, HEALED, HEALED),
    ("analysis", "flipped"): (ALTERED, HEALED, HEALED),
    ("analysis", "of another study"): (FOREIGN, HEALED, HEALED),
    ("analysis", "deleted"): ("", HEALED, NOTHING),
    ("note", "flipped"): (ALTERED, NOTHING, ASIDE),
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
    if kind.startswith("the folder "):
        return replace_folder(files, kind.removeprefix("the folder "))
    name, *more = files.names(kind)
    if deed == "of another study":  # which has the same pre-training
        name = files.names(kind)[-1]
    path, data = files.study / name, (files.study / name).read_bytes()
    if deed == "flipped":
        at = data.index(b"steps = 20") + 9 if kind == "spec" else len(data) // 2
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    elif deed == "deleted":
        path.unlink()
    elif deed in {"forged and sealed", "with a row twice"}:
        forge(Store.open(files.study), path, deed)
    elif deed == "of another study":
        path.write_bytes((files.other / name).read_bytes())
    elif deed == "swapped":
        name_of_other = next(iter(more[::-1]), files.names("runs")[0])
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
        block(files, path, deed)
    return {name}


def block(files: Files, path: Path, deed: str) -> None:
    """Put something else instead of a file."""
    kept = files.outside / path.name
    path.rename(kept)
    if deed == "a folder":
        path.mkdir()
    elif deed == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(kept)
    if deed == "a link to nothing":
        kept.unlink()


def forge(store: Store, path: Path, deed: str) -> None:
    """Write a plan or a part with other values, and with the checksum and the place that belong to them."""
    if path.suffix == ".json":
        plan = read_stored_plan(store)
        assert plan is not None
        first, *others = plan.trainings
        lanes = tuple(lane.model_copy(update={"plr": 2 * lane.plr}) for lane in first.lanes)
        forged = first.model_copy(update={"lanes": lanes})
        path.write_text(plan_text(plan.model_copy(update={"trainings": (forged, *others)})), encoding="utf-8")
        return
    table = path.parent.name
    rows = store.read_table(table, path.stem)
    column = pl.col("step" if table == "traces" else "plr")
    store.write_table(
        table, path.stem, pl.concat([rows, rows[:1]]) if "twice" in deed else rows.with_columns(column * 2 + 1)
    )


def replace_folder(files: Files, name: str) -> set[str]:
    """Put a file instead of a folder; its name, and those of the files that are missing now."""
    lost = [str(path.relative_to(files.study)) for path in (files.study / name).rglob("*") if path.is_file()]
    shutil.rmtree(files.study / name, ignore_errors=True)
    (files.study / name).write_text("a file")
    return {name, *(each for each in lost if name != "sittings" and not each.endswith("analysis.parquet"))}


def silent(_: str) -> None:
    """Nobody needs a message."""


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
    assert all(each.what.startswith(what) or (what == NO_FOLDER and each.what == MISSING) for each in found)
    before = contents(files.study)
    with workerless(), reported():
        if resumed == REFUSED:
            with pytest.raises(StudyError, match=re.escape(KINDS[kind])):
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
    if kind != "lock":
        assert (contents(files.study) == before) == (CASES[kind, deed][2] == NOTHING)
    assert faults(Store.open(files.study)) == []


@contextmanager
def reported() -> Generator[None]:
    """Reports with the page of the fixture."""

    def write_page(atlas: Atlas, _: object) -> None:
        atlas.store.write_text("report.html", "the page")

    with patch("lratlas.api.report.draw_charts"), patch("lratlas.api.report.write_files", write_page):
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
