"""Folders with odd names, and pipes, devices, links and huge files in them, by every command that reads or trains."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cheaper import workerless
from cli.helpers import Ran, sentence
from hostile_folders import UNSAFE
from search.finder_helpers import a_finder, trained

Run = Callable[..., Ran]
READING = (
    "status {}",
    "status {} --json",
    "show {} runs",
    "report {}",
    "compare {}",
    "verify {}",
    "verify {} --repair",
)
TRAINING = ("resume {} --workers 1",)
SEARCHING = ("status {}", "show {}", "report {}", "verify {}", "verify {} --repair")
NAMES = ("a\nb", "-x", "[red]x", "a  b ", os.fsdecode(b"\xff\xfe"), "\x1b[31m\x9b2J\u202e", "a::b", "%s{0}", "~")
FILES = ("spec.toml", "plan.json", "plan-copy.json", "report.html", "driver.lock", "tables/runs", "checkpoints")
KINDS = ("a pipe", "a device", "a socket", "a loop", "huge")
SEARCH_FILES = (
    "search.json",
    "journal.jsonl",
    "journal-end.json",
    "advice.json",
    "checkpoint.safetensors",
    "claims/x.lock",
)


def place(path: Path, kind: str) -> None:
    """Put something instead of a file."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a socket":
        os.mknod(path, 0o600 | 0o140000)
    elif kind == "a loop":
        path.symlink_to(path)
    else:
        path.touch()
        os.truncate(path, 2**40)


def assert_tame(ran: Ran) -> None:
    """A result, or one sentence and exit code 2; nothing that steers a terminal."""
    assert ran.code in {0, 1, 2}
    if ran.code == 2:
        assert "where it came from" not in sentence(ran)
    assert "Traceback" not in ran.out + ran.err
    assert not UNSAFE.search(ran.out + ran.err)


def words(command: str, folder: Path) -> list[str]:
    return [word.format(folder) for word in command.split(" ")]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_folder_is_read_and_resumed(name: str, study: Path, run: Run):
    folder = Path(shutil.move(study, study.with_name(name)))
    with workerless():
        for command in ("status {} --json", "compare {}", "verify {}", *TRAINING):
            ran = run(*words(command, folder))
            assert_tame(ran)
            assert ran.code == 0, (command, ran)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_whatever_has_the_place_of_a_file_of_a_study(name: str, kind: str, study: Path, run: Run):
    path = study / name
    place(min(path.iterdir()) if path.is_dir() else path, kind)
    with workerless():
        for command in ("status {}", "show {} runs", "verify {}", *TRAINING, "verify {} --repair"):
            assert_tame(run(*words(command, study)))
        if kind != "huge":
            assert run("verify", study).code == 0


@pytest.fixture
def search(tmp_path: Path) -> Path:
    finder = a_finder(tmp_path / "search")
    for _ in range(8):
        asked = finder.ask()
        assert asked is not None
        finder.tell(asked, **trained(asked))
    return tmp_path / "search"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SEARCH_FILES)
def test_whatever_has_the_place_of_a_file_of_a_search(name: str, kind: str, search: Path, run: Run):
    place(search / name, kind)
    for command in SEARCHING:
        assert_tame(run(*words(command, search)))
    if kind != "huge" and name not in {"search.json", "journal.jsonl"}:  # `find` makes these two
        assert run("verify", search).code == 0
