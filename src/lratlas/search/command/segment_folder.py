"""The folder of a segment that a command trains: what the command printed, the state it continues from and leaves."""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from lratlas.study.store.atomic import TEMPORARY


@dataclass(frozen=True, kw_only=True)
class SegmentFolder:
    """Where the files of a segment are.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def stdout(self) -> Path:
        """What the command printed."""
        return self.path / "stdout.txt"

    @property
    def stderr(self) -> Path:
        """What it printed to standard error."""
        return self.path / "stderr.txt"

    @property
    def output(self) -> Path:
        """Where it may append its records instead of printing them."""
        return self.path / "output.jsonl"

    @property
    def state(self) -> Path:
        """The folder of its state: the checkpoint and whatever else has a name that begins so."""
        return self.path / "state"

    @property
    def checkpoint(self) -> Path:
        """The path that the command is told; it may be a file or a folder, or be given an ending."""
        return self.state / "checkpoint"

    @property
    def has_state(self) -> bool:
        """Whether a state was saved, and not deleted."""
        return self.state.is_dir() and any(self.state.iterdir())

    def fingerprint(self) -> dict[str, tuple[int, int, int]]:
        """The files of the state with inode, size and time of change: differs once anything is saved."""
        return {str(path): _stamp(path) for path in self.state.rglob("*")}

    def drop_state(self) -> None:
        """Delete the state; nothing happens where there is none."""
        shutil.rmtree(self.state, ignore_errors=True)


def segment_folder(root: Path, name: str) -> SegmentFolder:
    """Where the files of a segment are.

    Args:
        root: The folder of the search.
        name: The segment's name.
    """
    return SegmentFolder(path=root / "segments" / name)


def prepared(root: Path, name: str, parent: str | None) -> SegmentFolder:
    """A fresh folder for a segment, with a copy of its parent's state.

    What an interrupted attempt left there is moved away before it is deleted, so that a program that still
    runs cannot write into the new one.

    Args:
        root: The folder of the search.
        name: The segment's name.
        parent: The parent's name; None if the segment starts from fresh weights.

    Raises:
        FileNotFoundError: The parent's state is not there.
        OSError: The files cannot be written.
    """
    folder = segment_folder(root, name)
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        folder.path.rename(folder.path.parent / f"{TEMPORARY}{uuid4().hex}")
    for old in folder.path.parent.glob(f"{TEMPORARY}*"):
        shutil.rmtree(old, ignore_errors=True)
    if parent is None:
        folder.state.mkdir(parents=True)
        return folder
    source = segment_folder(root, parent)
    if not source.has_state:
        raise FileNotFoundError(source.state)
    folder.path.mkdir()
    shutil.copytree(source.state, folder.state, symlinks=True)
    return folder


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_ino, found.st_size, found.st_mtime_ns
