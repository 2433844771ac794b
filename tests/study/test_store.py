import errno
import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lratlas import files
from lratlas.errors import DamagedFile, StudyError
from lratlas.study.store import Store
from lratlas.tables import SCHEMAS, empty
from study.running import damaged

SPEC = 'name = "study"\n'
VALUES: dict[type[pl.DataType], st.SearchStrategy[object]] = {
    pl.String: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    pl.Int64: st.integers(-(2**63), 2**63 - 1),
    pl.Float64: st.floats(allow_nan=False),
    pl.Boolean: st.booleans(),
}
PAIR = {
    "plr": 0.1,
    "seed": 0,
    "a": "low",
    "b": "swa",
    "angle": 0.5,
    "train_barrier": None,
    "test_barrier": 0.25,
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, pl.DataFrame]:
    table = draw(st.sampled_from(sorted(SCHEMAS)))
    row = st.fixed_dictionaries({name: st.none() | VALUES[dtype.base_type()] for name, dtype in SCHEMAS[table].items()})
    return table, pl.DataFrame(draw(st.lists(row, max_size=5)), schema=SCHEMAS[table])


def pairs(count: int) -> pl.DataFrame:
    return pl.DataFrame([{**PAIR, "seed": seed} for seed in range(count)], schema=SCHEMAS["pairs"])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "study", SPEC)


@given(tables())
def test_a_table_reads_back_equal(written: tuple[str, pl.DataFrame]):
    table, frame = written
    store = Store.create(f"memory://{uuid4().hex}", SPEC)
    store.write_table(table, "only", frame)
    assert_frame_equal(store.read_table(table, "only"), frame)
    assert_frame_equal(store.read_table(table), frame)


def test_parts_are_put_together_in_the_order_of_their_names(store: Store):
    rows = pairs(3)
    for name, index in (("c", 2), ("a", 0), ("b", 1)):
        store.write_table("pairs", name, rows[index])
    assert store.parts("pairs") == {"a", "b", "c"}
    assert_frame_equal(store.read_table("pairs"), rows)
    store.remove_part("pairs", "b")
    store.remove_part("pairs", "b")
    assert_frame_equal(store.read_table("pairs"), rows[[0, 2]])


def test_a_table_without_parts_is_empty_with_its_columns(store: Store):
    assert store.parts("runs") == set()
    assert_frame_equal(store.read_table("runs"), empty("runs"))


def test_columns_are_ordered_and_cast_and_nan_becomes_null(store: Store):
    frame = pairs(1).select(pl.all().reverse()).with_columns(pl.col("seed").cast(pl.Int8), angle=float("nan"))
    store.write_table("pairs", "x", frame.select(sorted(frame.columns)))
    expected = pairs(1).with_columns(angle=pl.lit(None, dtype=pl.Float64))
    assert_frame_equal(store.read_table("pairs"), expected)


def test_rows_that_do_not_fit_are_refused(store: Store):
    with pytest.raises(StudyError, match="differ in angle, more"):
        store.write_table("pairs", "x", pairs(1).rename({"angle": "more"}))
    with pytest.raises(StudyError, match="do not have the column types"):
        store.write_table("pairs", "x", pairs(1).with_columns(seed=pl.lit("many")))
    with pytest.raises(StudyError, match="no table 'rnus'; the tables are runs, "):
        store.write_table("rnus", "x", pairs(1))
    with pytest.raises(StudyError, match="no file tables/pairs/x"):
        store.read_table("pairs", "x")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_weights_read_back_equal(store: Store, dtype: torch.dtype):
    whole = torch.arange(24).reshape(2, 3, 4).to(dtype)
    tensors = {"run/a": whole[0], "run/b": whole[1].T, "scalar": whole[0, 0, 0], "none": whole[:0]}
    store.write_weights("stack", tensors)
    read = store.read_weights("stack")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == dtype
        assert torch.equal(read[name], tensor)
    assert store.has_weights("stack")
    assert store.weights() == ["stack"]
    store.remove_weights("stack")
    assert not store.has_weights("stack")


def test_a_file_system_in_memory_does_all_that_a_disk_does():
    store = Store.create(f"memory://{uuid4().hex}/deep", SPEC)
    store.write_table("pairs", "x", pairs(2))
    store.write_weights("w", {"a": torch.ones(2)})
    again = Store.open(store.url)
    assert again.read_text("spec.toml") == SPEC
    assert (again.parts("pairs"), again.weights(), damaged(again)) == ({"x"}, ["w"], [])
    again.write_bytes("checkpoints/w.safetensors", b"altered")
    assert damaged(again) == ["checkpoints/w.safetensors"]
    assert again.set_aside("checkpoints/w.safetensors") == "damaged/checkpoints/w.safetensors"
    assert not again.has_weights("w")


@pytest.mark.parametrize("name", ["../x", "..", "a/../x", "/etc/x", "", "a//b", ".hidden", "a\\b", "a\0", "x" * 300])
def test_names_cannot_lead_out_of_the_folder(store: Store, name: str):
    attempts = (
        lambda: store.write_text(name, ""),
        lambda: store.read_text(name),
        lambda: store.write_table("pairs", name, pairs(1)),
        lambda: store.write_weights(name, {"a": torch.ones(1)}),
        lambda: store.set_aside(name),
    )
    for attempt in attempts:
        with pytest.raises(StudyError, match="cannot be the name of a"):
            attempt()
    assert sorted(path.name for path in Path(store.root).iterdir()) == ["spec.toml"]


def test_leftover_temporary_files_count_as_nothing(tmp_path: Path):
    (tmp_path / ".lratlas-0123").write_text("half a sp")
    with pytest.raises(StudyError, match="no study in the empty folder"):
        Store.open(tmp_path)
    store = Store.create(tmp_path, SPEC)
    folder = tmp_path / "tables" / "pairs"
    folder.mkdir(parents=True)
    (folder / ".lratlas-4567").write_text("half a table")
    assert store.parts("pairs") == set()
    assert damaged(store) == []


def test_a_full_disk_loses_nothing_and_says_what_to_do(store: Store, monkeypatch: pytest.MonkeyPatch):
    store.write_table("pairs", "x", pairs(1))

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    for attempt in (
        lambda: store.write_table("pairs", "x", pairs(2)),
        lambda: store.write_table("pairs", "y", pairs(2)),
        lambda: store.write_weights("w", {"a": torch.ones(1)}),
    ):
        with pytest.raises(StudyError, match=r"disk is full: .* All results so far are saved; .*lratlas resume"):
            attempt()
    assert store.parts("pairs") == {"x"}
    assert_frame_equal(store.read_table("pairs"), pairs(1))
    assert not [path for path in Path(store.root).rglob("*") if path.name.startswith(".")]


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
import polars as pl
from lratlas.study.store import Store
from lratlas.tables import empty

def end(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "rename":
    Path.replace = end
else:
    os.fsync = end
Store.open(sys.argv[1]).write_table("pairs", "x", empty("pairs"))
"""


@pytest.mark.parametrize("moment", ["sync", "rename"])
def test_a_writer_that_is_killed_leaves_what_was_there(store: Store, moment: str):
    store.write_table("pairs", "x", pairs(3))
    command = [sys.executable, "-c", KILLED_WRITER, store.url, moment]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    leftover = [path for path in (Path(store.root) / "tables/pairs").iterdir() if path.name != "x.parquet"]
    assert len(leftover) == 1
    assert store.parts("pairs") == {"x"}
    assert damaged(store) == []
    assert_frame_equal(store.read_table("pairs"), pairs(3))


def test_many_writers_of_one_part_and_its_readers_see_whole_parts(store: Store):
    store.write_table("pairs", "x", pairs(1))
    with ThreadPoolExecutor(8) as pool:
        writing = [pool.submit(store.write_table, "pairs", "x", pairs(1 + index % 5)) for index in range(60)]
        reading = [pool.submit(store.read_table, "pairs") for _ in range(60)]
    assert [each.result() for each in writing] == [None] * 60
    for each in reading:
        frame = each.result()
        assert_frame_equal(frame, pairs(frame.height))


def _damages(data: bytes, seed: int) -> list[bytes]:
    """Truncations at random places, flips of random bits, and bytes put in or taken away."""
    chance = random.Random(seed)
    damaged = [data[: chance.randrange(len(data))] for _ in range(60)]
    for _ in range(300):
        altered = bytearray(data)
        for _ in range(chance.choice([1, 1, 3])):
            altered[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        damaged.append(bytes(altered))
    return [*damaged, data + b"\0", b"\0" + data, data[1:], b"", b"not a file of a study"]


def test_no_damage_to_a_table_goes_unnoticed(store: Store):
    store.write_table("pairs", "x", pairs(20))
    path = Path(store.root) / "tables/pairs/x.parquet"
    whole = path.read_bytes()
    for altered in _damages(whole, 0):
        path.write_bytes(altered)
        if altered == whole:  # two flips may cancel out
            continue
        with pytest.raises(
            DamagedFile, match=r"; to move it to damaged/ and compute it again, run `lratlas resume "
        ) as caught:
            store.read_table("pairs")
        assert caught.value.path == "tables/pairs/x.parquet"


def test_no_damage_to_weights_goes_unnoticed(store: Store):
    store.write_weights("w", {"a": torch.linspace(0, 1, 50)})
    path = Path(store.root) / "checkpoints/w.safetensors"
    whole = path.read_bytes()
    for altered in _damages(whole, 1):
        path.write_bytes(altered)
        if altered == whole:
            continue
        with pytest.raises(DamagedFile) as caught:
            store.read_weights("w")
        assert caught.value.path == "checkpoints/w.safetensors"


def test_a_sealed_file_of_another_kind_is_damage_too(store: Store):
    store.write_table("boundaries", "x", empty("boundaries"))
    store.write_bytes("tables/pairs/x.parquet", store.read_bytes("tables/boundaries/x.parquet"))
    with pytest.raises(DamagedFile, match=r"is a copy of tables/boundaries/x\.parquet"):
        store.read_table("pairs")
    store.write_bytes("tables/pairs/x.parquet", files.seal(files.PLACEHOLDER.encode()))
    with pytest.raises(DamagedFile, match="is not a Parquet file"):
        store.read_table("pairs")
    store.write_bytes("checkpoints/w.safetensors", files.seal(files.PLACEHOLDER.encode()))
    assert damaged(store) == ["checkpoints/w.safetensors", "tables/pairs/x.parquet"]
    with pytest.raises(DamagedFile, match="is not a safetensors file"):
        store.read_weights("w")


def test_sealed_tables_are_ordinary_parquet(store: Store):
    store.write_table("pairs", "x", pairs(3))
    assert_frame_equal(pl.read_parquet(Path(store.root) / "tables/pairs/x.parquet"), pairs(3))


def test_damaged_files_are_listed_and_set_aside_without_overwriting(store: Store):
    for _ in range(2):
        store.write_table("pairs", "x", pairs(1))
        store.write_table("pairs", "y", pairs(1))
        (Path(store.root) / "tables/pairs/x.parquet").write_bytes(b"")
        assert damaged(store) == ["tables/pairs/x.parquet"]
        store.set_aside("tables/pairs/x.parquet")
        assert damaged(store) == []
        assert store.parts("pairs") == {"y"}
    kept = sorted(path.name for path in (Path(store.root) / "damaged/tables/pairs").iterdir())
    assert kept == ["x.parquet", "x.parquet.1"]
    with pytest.raises(StudyError, match=r"no file tables/pairs/x\.parquet"):
        store.set_aside("tables/pairs/x.parquet")


def test_content_that_looks_like_a_checksum_is_refused(store: Store):
    with pytest.raises(StudyError, match="must be in the metadata only"):
        store.write_table("pairs", "x", pairs(1).with_columns(a=pl.lit(files.PLACEHOLDER)))
