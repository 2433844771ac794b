from pathlib import Path

import pytest

from lratlas.study.records import Session, WallTime, wall_time, write_note
from lratlas.study.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "study", 'name = "made up"\n')


def test_sessions_add_up(store: Store):
    assert wall_time(store) == WallTime(seconds=0.0, sessions=0)
    for seconds in (1.5, 2.25):
        write_note(store, Session(seconds=seconds, workers=2))
    assert wall_time(store) == WallTime(seconds=3.75, sessions=2)


def test_a_damaged_file_is_no_session(store: Store):
    write_note(store, Session(seconds=1.5, workers=1))
    for number, text in enumerate(["", "{}", "[]", '{"seconds": "long"}', '{"seconds": null}']):
        store.write_text(f"sittings/{number}.json", text)
    assert wall_time(store) == WallTime(seconds=1.5, sessions=1)


def test_what_cannot_be_written_is_let_go(store: Store, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    write_note(store, Session(seconds=1.0, workers=1))
    assert wall_time(store).sessions == 0
