"""Formats and migrations of plans and of parts of tables."""

import io
from pathlib import Path

import polars as pl
import pytest

from lratlas import files
from lratlas.errors import StudyError
from lratlas.study.formats import FORMAT, check_format, format_of, migrate_part, migrate_plan, versions
from lratlas.study.plan import plan_text, read_plan, read_stored_plan
from lratlas.study.store import Store
from lratlas.tables import SCHEMAS, empty
from study.running import damaged

STUDIES = Path(__file__).parents[1] / "data" / "studies"
OLD_PAIRS = empty("pairs").drop("train_barrier_arc", "test_barrier_arc")


@pytest.mark.parametrize("name", ["format-1", "format-2"])
def test_an_earlier_plan_is_read_and_written_in_todays_format(name: str):
    old = read_plan((STUDIES / name / "plan.json").read_text(), where="plan.json", how=str)
    assert old.format == int(name[-1])
    assert (old.spec, [each.words for each in old.made_with]) == ("", ["lratlas 0.1.0"])
    new = read_plan(plan_text(old), where="plan.json", how=str)
    assert new.format == FORMAT
    assert new == old.model_copy(update={"format": FORMAT})


def test_a_format_is_told_by_what_is_stated():
    assert format_of({"format": 1}) == 1
    assert format_of({"format": 1, "norms": []}) == 2
    assert format_of({"format": FORMAT + 1}) == FORMAT + 1
    for nothing in ({}, {"format": "1"}, {"format": 0}):
        with pytest.raises(ValueError, match="the format is"):
            format_of(nothing)


def test_migrations_change_no_field_that_is_there():
    given = {"format": 1, "device": "cuda", "compiled": True, "task": "blobs", "norms": [{"id": "a"}]}
    assert migrate_plan(given).items() >= {"device": "cuda", "compiled": True, "task": "blobs"}.items()
    assert given["norms"] == [{"id": "a"}]


def test_columns_that_an_earlier_part_lacks_are_null():
    row = OLD_PAIRS.clear(1).with_columns(plr=0.1, a=pl.lit("low"))
    found = migrate_part("pairs", row, None)
    assert found.schema == SCHEMAS["pairs"]
    assert found.select(OLD_PAIRS.columns).equals(row)
    assert found["test_barrier_arc"].to_list() == [None]


@pytest.mark.parametrize(("table", "column"), [("runs", "start_loss"), ("regimes", "reason")])
@pytest.mark.parametrize("stated", [None, "3"])
def test_parts_from_before_format_4_lack_a_column_each(table: str, column: str, stated: str | None):
    row = empty(table).drop(column).clear(1).with_columns(plr=0.1)
    found = migrate_part(table, row, stated)
    assert found.schema == SCHEMAS[table]
    assert found.select("plr", column).row(0) == (0.1, None)


def test_of_a_part_that_states_todays_format_nothing_is_made_up(tmp_path: Path):
    store = Store.create(tmp_path / "study", "spec")
    store.write_bytes("tables/pairs/part.parquet", sealed_part(OLD_PAIRS, str(FORMAT)))
    with pytest.raises(StudyError, match="does not have the columns of the table pairs"):
        store.read_table("pairs")


def test_a_part_of_a_later_format_is_refused_and_not_called_damaged(tmp_path: Path):
    store = Store.create(tmp_path / "study", "spec")
    store.write_bytes("tables/pairs/part.parquet", sealed_part(empty("pairs"), str(FORMAT + 1)))
    for read in (lambda: store.read_table("pairs"), lambda: damaged(store)):
        with pytest.raises(StudyError, match=rf"has format {FORMAT + 1}, which needs a later lratlas"):
            read()


def test_every_part_states_its_format(tmp_path: Path):
    store = Store.create(tmp_path / "study", "spec")
    store.write_table("runs", "part", empty("runs"))
    data = io.BytesIO(store.read_bytes("tables/runs/part.parquet"))
    assert pl.read_parquet_metadata(data)["format"] == str(FORMAT)


def test_what_this_version_writes_it_reads():
    check_format(FORMAT, "plan.json")
    with pytest.raises(StudyError, match=r"plan\.json has format .* needs lratlas 9\.1 or later; lratlas "):
        check_format(FORMAT + 1, "plan.json", "9.1")


def test_a_study_says_what_it_was_made_with(whole_study: Path):
    plan = read_stored_plan(Store.open(whole_study))
    assert plan is not None
    assert [each.model_dump() for each in plan.made_with] == [versions()]
    assert f"torch {versions()['torch']}" in plan.versions


def sealed_part(frame: pl.DataFrame, stated: str) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, metadata={"format": stated, files.KEY: files.PLACEHOLDER})
    return files.seal(buffer.getvalue())
