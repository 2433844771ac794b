import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.helpers import MODULE, SPEC, Explored, Ran, sentence
from lratlas.cli.app import main


def pytest_itemcollected(item: pytest.Item) -> None:
    """All tests of the small study are run by one process, so that it is made once."""
    if isinstance(item, pytest.Function) and "explored" in item.fixturenames:
        item.add_marker(pytest.mark.xdist_group("cli"))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a user's own module and the spec of a small study."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "cli_own.py").write_text(MODULE)
    (folder / "spec.toml").write_text(SPEC)
    return folder


@pytest.fixture(scope="session")
def explored(home: Path) -> Explored:
    """The small study, made by the command in a terminal, with data that print their own output."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "lratlas", "explore", "spec.toml", "-f", "study", "--workers", "1", "--json"],
        cwd=home,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "140", "LRATLAS_TEST_NOISE": "1"},
        stdout=subprocess.PIPE,
        stderr=terminal,
        encoding="utf-8",
    )
    os.close(terminal)
    seen = b"".join(_read_all(controller)).decode()
    out, _ = process.communicate()
    assert process.returncode == 0, seen[-500:]
    return Explored(folder=home / "study", out=out, terminal=seen)


def _read_all(controller: int) -> Iterator[bytes]:
    # Linux reports the end of a terminal's output as an error.
    try:
        while part := os.read(controller, 65536):
            yield part
    except OSError:
        pass
    finally:
        os.close(controller)


@pytest.fixture
def study(explored: Explored, tmp_path: Path) -> Path:
    """A copy of the small study that a test may spoil."""
    return Path(shutil.copytree(explored.folder, tmp_path / "study"))


@pytest.fixture
def run(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Ran]]:
    """The command in this process, run where the user's module is."""
    monkeypatch.syspath_prepend(home)
    monkeypatch.chdir(home)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def command(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["lratlas", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        assert isinstance(code, int)
        out, err = capsys.readouterr()
        # Only the first test of the process imports the module.
        return Ran(code=code, out=out, err=err.replace(f"lratlas: Imports cli_own from {home / 'cli_own.py'}.\n", ""))

    yield command
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def refused(run: Callable[..., Ran]) -> Callable[..., str]:
    """The sentence with which a command refuses its input."""

    def command(*words: object) -> str:
        return sentence(run(*words))

    return command
