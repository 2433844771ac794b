import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cli.helpers import Explored, Ran
from lratlas.cli.app import app

# What scripts and papers rely on: a change here is a change for every user.
COMMANDS = {
    "demo": ["--workers = None", "--folder/-f = lratlas-demo"],
    "explore": [
        "SPEC.toml",
        "--folder/-f = None",
        "--data-root = None",
        "--workers = None",
        "--cluster = None",
        "--gpu-share = 1.0",
        "--json = False",
    ],
    "reproduce": [
        "PRESET",
        "--folder/-f = None",
        "--repeats = None",
        "--scale = None",
        "--width = None",
        "--images = None",
        "--test-images = None",
        "--epochs = None",
        "--finetune-epochs = None",
        "--lrs = None",
        "--measure = None",
        "--data-root = None",
        "--workers = None",
        "--cluster = None",
        "--gpu-share = 1.0",
        "--json = False",
    ],
    "resume": [
        "FOLDER",
        "--data-root = None",
        "--workers = None",
        "--cluster = None",
        "--gpu-share = 1.0",
        "--device = None",
        "--json = False",
    ],
    "status": ["FOLDER", "--json = False"],
    "show": ["FOLDER", "TABLE = None", "--format = table"],
    "report": ["FOLDER", "--data-root = None", "--at-loss = None", "--figures = None"],
    "compare": ["FOLDER…", "--format = table", "--html = None"],
    "find": [
        "SPEC.toml | -- ARGUMENTS = None",
        "--script = None",
        "--value = None",
        "--metric-pattern = None",
        "--command = None",
        "--folder/-f = lratlas-find",
        "--steps = None",
        "--epochs = None",
        "--lrs = None",
        "--budget = 1.5",
        "--tolerance = 0.01",
        "--schedule = constant",
        "--warmup = 0",
        "--seed = 0",
        "--direction = None",
        "--metric = None",
        "--samples = None",
        "--chance = None",
        "--limit = None",
        "--timeout = None",
        "--stall = None",
        "--workers = None",
        "--retry-failed = False",
        "--data-root = None",
        "--json = False",
    ],
    "watch": ["SCRIPT.py", "-- ARGUMENTS = None", "--schedule = constant", "--chance-loss = None", "--log = None"],
    "serve": ["FOLDER", "--host = 127.0.0.1", "--port = 0"],
    "verify": ["FOLDER", "--repair = False", "--data-root = None", "--json = False"],
    "doctor": ["--json = False"],
    "data": [],
}
HEAVY = {"torch", "polars", "altair", "scipy", "sklearn", "pydantic"}


def described(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return parameter.metavar if parameter.required else f"{parameter.metavar} = {parameter.default}"
    names = "/".join([*parameter.opts, *parameter.secondary_opts])
    return f"{names}, required" if parameter.required else f"{names} = {parameter.default}"


def test_the_commands_and_their_flags_are_these():
    group: Any = typer.main.get_command(app)
    found = {name: [described(parameter) for parameter in command.params] for name, command in group.commands.items()}
    assert found == COMMANDS
    assert [described(parameter) for parameter in group.params] == ["--version = False"]


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, flag: str, run: Callable[..., Ran]):
    ran = run(command, flag)
    assert (ran.code, ran.err) == (0, "")
    assert f"lratlas {command}" in ran.out
    for parameter in COMMANDS[command]:
        assert parameter.split("/")[0].split()[0].rstrip(",") in ran.out


def test_without_a_command_the_help_is_shown(run: Callable[..., Ran]):
    ran = run()
    assert (ran.code, ran.err) == (0, "")
    assert all(command in ran.out for command in COMMANDS)


def test_the_version_is_printed(run: Callable[..., Ran]):
    from importlib.metadata import version

    assert run("--version") == Ran(code=0, out=f"lratlas {version('lratlas')}\n", err="")


@pytest.mark.parametrize("words", [["--help"], ["explore", "missing.toml", "--folder", "x"]])
def test_the_command_line_starts_without_anything_heavy(words: list[str]):
    words = [sys.executable, "-X", "importtime", "-m", "lratlas", *words]
    lines = subprocess.run(words, capture_output=True, encoding="utf-8", check=False).stderr.splitlines()
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines if line.startswith("import time")}
    assert "typer" in imported
    # A spec is read with pydantic; that is quick.
    assert not imported & (HEAVY if "--help" in words else HEAVY - {"pydantic"})


def test_help_has_panels_in_the_order_of_work_and_names_no_python_types(run: Callable[..., Ran]):
    out = run("--help").out
    panels = ["Start", "Study", "Inspect", "Data"]
    places = [out.index(f"─ {panel} ─") for panel in panels]
    assert places == sorted(places)
    assert all(out.count(f"│ {command} ") == 1 for command in COMMANDS if " " not in command)
    for words in (["--help"], *([command, "--help"] for command in COMMANDS)):
        shown = run(*command_words(words)).out
        assert not re.search(r"<(bool|str|int|float|path|file|list|[A-Z])", shown), words
        assert max(map(len, shown.splitlines())) <= 80


def command_words(words: list[str]) -> list[str]:
    return [part for word in words for part in word.split()]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("explor", "No such command 'explor' (did you mean 'explore'"),
        ("data ftch", "No such command 'ftch' (did you mean 'fetch'?)"),
        ("find --budgett 3", "No such option: --budgett (did you mean --budget?)"),
        ("data fetch minst", "There is no data set 'minst' (did you mean mnist?)"),
        ("reproduce tick", "There is no preset 'tick' (did you mean ticks?)"),
        ("show study bondaries", "There is no table 'bondaries' (did you mean boundaries?)"),
        ("show study runs --format jsn", "--format is 'jsn' (did you mean json?)"),
        ("find spec.toml --schedule cosin", "--schedule is 'cosin' (did you mean cosine?)"),
    ],
)
def test_unknown_names_get_a_guess(words: str, hint: str, refused: Callable[..., str], explored: Explored):
    assert explored.folder.name == "study"
    assert hint in refused(*words.split())


def test_folders_have_a_default_that_is_shown(
    home: Path, tmp_path: Path, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "small.toml").write_bytes((home / "spec.toml").read_bytes())
    monkeypatch.chdir(tmp_path)
    ran = run("explore", "small.toml", "--workers", "0")
    assert ran.code == 0
    assert ran.err.splitlines()[0] == "lratlas: The study is in lratlas-small; run the same command again to resume."
    assert f"Report: {tmp_path / 'lratlas-small' / 'report.html'}" in ran.out
