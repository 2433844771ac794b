"""Unfinished files: those of processes that were killed are removed, those that are being written are not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from lratlas.atlas import Atlas
from lratlas.files import TEMPORARY, sweep, write_file

WRITE = """
import os, sys, time
from pathlib import Path
from lratlas import files

def stall(_):
    print("writing", flush=True)
    time.sleep(60)

os.fsync = stall
files.write_file(Path(sys.argv[1]), b"half")
"""


def test_only_what_a_killed_process_left_is_swept(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(tmp_path / "file")], stdout=subprocess.PIPE, encoding="utf-8"
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        (unfinished,) = tmp_path.iterdir()
        assert unfinished.name.startswith(TEMPORARY)
        # However old its clock says it is, it is being written.
        os.utime(unfinished, (0, 0))
        sweep(tmp_path.iterdir())
        assert unfinished.exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.utime(unfinished, (later := time.time() + 1e6, later))
        sweep(tmp_path.iterdir())
        assert not unfinished.exists()
    finally:
        with suppress(OSError):
            process.kill()
        process.communicate()


def test_other_files_are_not_swept(tmp_path: Path):
    (tmp_path / "kept").write_text("somebody's")
    (tmp_path / f"{TEMPORARY}link").symlink_to(tmp_path / "kept")
    (tmp_path / f"{TEMPORARY}folder").mkdir()
    write_file(tmp_path / "file", b"whole")
    before = sorted(tmp_path.iterdir())
    sweep([*tmp_path.iterdir(), tmp_path / f"{TEMPORARY}gone"])
    assert sorted(tmp_path.iterdir()) == before


def test_a_driver_sweeps_the_study(explored: Callable[..., Atlas], tmp_path: Path):
    explored(tmp_path / "study")
    for folder in (tmp_path / "study", tmp_path / "study" / "tables" / "runs", tmp_path / "study" / "checkpoints"):
        (folder / f"{TEMPORARY}0123").write_text("half a file")
    explored(tmp_path / "study")
    assert not list((tmp_path / "study").rglob(f"{TEMPORARY}*"))


@pytest.mark.parametrize("data", [b"", b"\x00" * 100])
def test_a_file_reads_back_and_replaces_an_earlier_one(data: bytes, tmp_path: Path):
    for content in (b"before", data):
        write_file(tmp_path / "folder" / "file", content)
        assert (tmp_path / "folder" / "file").read_bytes() == content
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]


def test_where_open_files_cannot_be_renamed_they_are_closed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As on Windows."""
    renamed = list[str]()

    def rename(source: Path, target: Path) -> Path:
        still_open = {os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()}
        assert str(source) not in still_open
        renamed.append(target.name)
        return replace(source, target)

    replace = Path.replace
    monkeypatch.setattr("lratlas.files._POSIX", False)
    monkeypatch.setattr(Path, "replace", rename)
    write_file(tmp_path / "file", b"one")
    write_file(tmp_path / "file", b"two")
    write_file(tmp_path / "new", b"three", new=True)
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "new", b"four", new=True)
    assert renamed == ["file", "file"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"two", "new": b"three"}
