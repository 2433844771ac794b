"""Commands, workers and these tests work the same whatever they inherit from the process that starts them."""

import json
import os
import re
import signal
import stat
from pathlib import Path

import pytest

from hostile import ROOT, UMASK, dispositions, hostile_start
from lratlas.atlas import load
from lratlas.execute.executors import WORKER
from lratlas.files import make_folder
from study.running import wait_until

pytestmark = [
    pytest.mark.xdist_group("anywhere"),  # the study is made once
    pytest.mark.skipif(os.name != "posix", reason="signals and modes of POSIX"),
]
NAME = "größe 学"
SPEC = f"""
name = "{NAME}"
[task]
preset = "ticks"
options = {{ train = 32, test = 32, single = 8 }}
[pretrain]
lrs = [1e-3]
steps = 4
[training]
compile = false
"""


# The command, whose page is not drawn: that costs more than all the rest.
UNDRAWN = "from cheaper import undrawn; from lratlas.cli.app import main; undrawn().__enter__(); main()"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("any where")
    (folder / "spec.toml").write_text(SPEC, encoding="utf-8")
    return folder


def ran(*words: object, scratch: Path, closed: str = "0") -> tuple[int, str, str]:
    """The exit code of Python with these words, and what it printed."""
    with hostile_start(*words, scratch=scratch, closed=closed) as process:
        out, errors = process.communicate(timeout=120)
    return process.returncode, out, errors


@pytest.fixture(scope="module")
def study(scratch: Path) -> Path:
    """A study with a name that is not ASCII, made by a driver and a worker that inherit the worst."""
    folder = scratch / "study"
    code, out, errors = ran("-c", UNDRAWN, "explore", "spec.toml", "--folder", folder, "--workers", 1, scratch=scratch)
    assert (code, errors) == (0, "")
    assert out.startswith("| boundary    | below |")  # no width of a terminal
    assert "|     \\u2013 |" in out
    return folder


def test_a_study_is_whole_and_its_files_have_the_modes_of_the_umask(study: Path):
    assert load(study).table("runs").height == 1
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in (study, *study.rglob("*"))}
    assert modes == {(True, 0o777 & ~UMASK), (False, 0o666 & ~UMASK)}


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o027])
def test_a_file_written_under_another_name_has_the_mode_of_the_umask(umask: int, tmp_path: Path):
    before = os.umask(umask)
    try:
        make_folder(tmp_path / "folder", "file", b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((tmp_path / "folder" / "file").stat().st_mode) == 0o666 & ~umask


def test_what_a_terminal_cannot_show_is_printed_in_ascii(study: Path, scratch: Path):
    code, out, errors = ran("-m", "lratlas", "status", study, scratch=scratch)
    assert (code, errors) == (0, "")
    assert "gr\\xf6\\xdfe \\u5b66 in " in out


@pytest.mark.parametrize("words", ["--help", "--version", "data list"])
def test_a_command_without_any_standard_stream_works(words: str, scratch: Path):
    assert ran("-m", "lratlas", *words.split(), scratch=scratch, closed="012") == (0, "", "")


def test_a_server_ends_on_a_signal_that_was_inherited_ignored_and_blocked(study: Path, scratch: Path):
    with hostile_start("-m", "lratlas", "serve", study, scratch=scratch) as process:
        try:
            assert process.stdout
            assert process.stdout.readline().startswith("http://127.0.0.1:")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert errors.endswith("lratlas: ended.\n")


def is_set_up(worker: int) -> bool:
    """Whether a worker has set its signals; neither the process that it was forked from nor the launcher has both."""
    found = dispositions(worker)
    return signal.SIGINT in found["ignored"] and signal.SIGTERM in found["caught"]


def test_a_worker_depends_on_no_signals_or_encoding_that_it_inherits(scratch: Path):
    with hostile_start("-m", WORKER, scratch=scratch, closed="") as process:
        try:
            wait_until(lambda: is_set_up(process.pid), within=60)
            found = dispositions(process.pid)
            message = {"folder": str(scratch / NAME), "plan": "", "path": [], "tasks": None}
            assert process.stdin
            process.stdin.write(json.dumps(message, ensure_ascii=False) + "\n")
            process.stdin.flush()
            process.wait(60)
            out, errors = process.communicate()
        finally:
            process.kill()
    assert found["blocked"] == set()
    # Ctrl-C is the driver's affair; a hangup that does not end the driver does not end its workers either.
    assert {signal.SIGINT, signal.SIGHUP} <= found["ignored"]
    assert not {signal.SIGTERM, signal.SIGCHLD} & found["ignored"]
    assert f"{scratch / NAME} was removed while in use" in json.loads(out)["error"]
    assert errors == ""


TESTS = (
    "search/program/test_command.py::test_ctrl_c_ends_the_programs_of_all_workers",
    "search/program/test_process.py::test_a_program_ends_when_the_search_is_killed",
    "cli/test_flags.py::test_the_version_is_printed",
)


def test_the_tests_themselves_inherit_nothing(scratch: Path):
    words = ["-m", "pytest", "-p", "no:cacheprovider", *(ROOT / "tests" / name for name in TESTS)]
    with hostile_start(*words, scratch=scratch) as process:
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, out + errors
    assert re.search(rf"^{len(TESTS)} passed", out, re.MULTILINE)
