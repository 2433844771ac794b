"""Tables of many parts: read together, once."""

import os
from pathlib import Path
from unittest.mock import Mock

import polars as pl
import pytest

from lratlas import files
from lratlas.errors import DamagedFile
from lratlas.study import merged
from lratlas.study.store import Store
from lratlas.tables import SCHEMAS

MANY = merged.MANY + 3


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A study with many parts, and a cache folder that nobody else has."""
    monkeypatch.setenv("LRATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("os.fsync", Mock())
    made = Store.create(tmp_path / "study", "")
    for number in range(MANY):
        write(made, number, loss=float(number))
    return made


def write(store: Store, number: int, *, loss: float) -> None:
    row = {"run": f"run-{number}", "step": 10, "train_loss": loss}
    columns = {name: [row.get(name)] for name in SCHEMAS["traces"]}
    store.write_table("traces", f"part-{number}", pl.DataFrame(columns, schema=SCHEMAS["traces"]))


def losses(store: Store) -> dict[str, float]:
    return dict(store.read_table("traces").select("run", "train_loss").iter_rows())


def test_what_was_read_is_not_read_again(store: Store, monkeypatch: pytest.MonkeyPatch):
    first = losses(store)
    assert first == {f"run-{number}": number for number in range(MANY)}
    checked = Mock(side_effect=files.is_intact)
    monkeypatch.setattr(files, "is_intact", checked)
    assert losses(store) == first
    assert not checked.called
    write(store, MANY, loss=0.5)
    assert losses(store) == first | {f"run-{MANY}": 0.5}
    path = Path(store.root, "tables", "traces", f"part-{MANY}.parquet")
    assert [call.args for call in checked.call_args_list] == [(path.read_bytes(),)]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_a_pipe_is_no_part_and_does_not_block(store: Store):
    part = Path(store.root, "tables", "traces", "part-3.parquet")
    part.unlink()
    os.mkfifo(part)
    assert losses(store).keys() == {f"run-{number}" for number in range(MANY) if number != 3}


def test_a_part_that_was_replaced_or_removed_is_noticed(store: Store):
    first = losses(store)
    write(store, 7, loss=-1.0)
    store.remove_part("traces", "part-8")
    assert losses(store) == {run: loss for run, loss in first.items() if run != "run-8"} | {"run-7": -1.0}


def test_a_damaged_part_is_named_before_and_after_others_were_remembered(store: Store):
    path = Path(store.root, "tables", "traces", "part-5.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DamagedFile, match=r"part-5\.parquet"):
        store.read_table("traces")
    path.write_bytes(whole)
    assert losses(store)["run-5"] == 5.0
    path.write_bytes(whole.replace(b"run-5", b"run-6"))
    with pytest.raises(DamagedFile, match=r"part-5\.parquet"):
        store.read_table("traces")


@pytest.mark.parametrize("what", [b"", b"not a table", None])
def test_a_cache_that_cannot_be_used_takes_nothing_with_it(
    store: Store, what: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = losses(store)
    (remembered,) = (tmp_path / "cache" / "tables").iterdir()
    if what is None:
        monkeypatch.setenv("LRATLAS_CACHE", "/dev/null/nowhere")
    else:
        remembered.write_bytes(what)
    assert losses(store) == first
