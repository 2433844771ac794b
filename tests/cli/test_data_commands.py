import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cli.helpers import Ran
from cli.test_flags import described
from data.serving import published, served
from lratlas.cli.data import app
from lratlas.data import sources

COMMANDS = {
    "list": ["--data-root = None", "--json = False"],
    "path": ["NAME", "--data-root = None", "--json = False"],
    "fetch": ["NAME", "--data-root = None", "--json = False"],
}
CONTENTS = {"a.bin": b"abc", "b.bin": b"de"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data root; the catalogue has one data set, whose server is gone."""
    monkeypatch.setenv("LRATLAS_DATA", str(tmp_path / "root"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served(tmp_path) as url:
        pass
    monkeypatch.setattr(sources, "CATALOGUE", {"own": published(url, CONTENTS)})
    return tmp_path / "root"


def put(folder: Path) -> Path:
    (folder / "own").mkdir(parents=True)
    for name, content in CONTENTS.items():
        (folder / "own" / name).write_bytes(content)
    return folder / "own"


def test_the_commands_and_their_flags_are_these():
    group: Any = typer.main.get_command(app)
    found = {name: [described(parameter) for parameter in command.params] for name, command in group.commands.items()}
    assert found == COMMANDS


def test_without_a_command_the_help_is_shown(run: Callable[..., Ran]):
    ran = run("data")
    assert (ran.code, ran.err) == (0, "")
    assert all(command in ran.out for command in COMMANDS)


def test_list_says_which_data_sets_are_there(run: Callable[..., Ran], root: Path):
    assert run("data", "list").out.splitlines()[2:] == ["| own  | Own data | no    | –    |"]
    missing = json.loads(run("data", "list", "--json").out)
    assert missing == [{"name": "own", "title": "Own data", "found": False, "path": None}]
    path = put(root)
    assert str(path) in run("data", "list").out
    found = json.loads(run("data", "list", "--json").out)
    assert found == [{"name": "own", "title": "Own data", "found": True, "path": str(path)}]


def test_path_prints_where_a_data_set_is(run: Callable[..., Ran], root: Path, tmp_path: Path):
    path = put(root)
    assert run("data", "path", "own") == Ran(code=0, out=f"{path}\n", err="")
    assert json.loads(run("data", "path", "own", "--json").out)["path"] == str(path)
    other = put(tmp_path / "other")
    assert run("data", "path", "own", "--data-root", tmp_path / "other").out == f"{other}\n"


@pytest.mark.usefixtures("root")
def test_missing_and_unknown_data_sets_are_refused_in_one_sentence(refused: Callable[..., str], root: Path):
    assert f"Own data is not in {root}; run `lratlas data fetch own`" in refused("data", "path", "own")
    for command in ("path", "fetch"):
        assert "no data set 'owl' (did you mean own?)" in refused("data", command, "owl")


def test_fetch_downloads_and_says_where_the_files_are(
    run: Callable[..., Ran], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with served(put(tmp_path / "site")) as url:
        monkeypatch.setattr(sources, "CATALOGUE", {"own": published(url, CONTENTS)})
        ran = run("data", "fetch", "own")
    files = [root / "own" / name for name in CONTENTS]
    assert ran == Ran(code=0, out="".join(f"{file}\n" for file in files), err="")
    assert [file.read_bytes() for file in files] == list(CONTENTS.values())
    again = run("data", "fetch", "own", "--json")  # the server is gone, but the files are right
    assert json.loads(again.out) == {"name": "own", "files": [str(file) for file in files]}


def test_fetch_without_a_network_says_what_to_put_where(refused: Callable[..., str], root: Path):
    sentence = refused("data", "fetch", "own")
    assert "cannot be downloaded (no connection)" in sentence
    assert sentence.endswith(f"into {root / 'own'}.")
