"""The README's own words: its Python runs, its spec reads, its commands are there."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import typer.main

from lratlas.cli import app
from lratlas.study.spec import spec_from

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found
    return found[1]


def test_the_python_example_runs_and_says_where_training_converges(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error::FutureWarning", "-c", block("python")]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "converges" in ran.stdout
    assert not list(tmp_path.iterdir())  # the study is in a temporary folder


def test_the_spec_is_valid() -> None:
    spec = spec_from(tomllib.loads(block("toml")))
    assert len(spec.pretrain.lrs) == 17


def test_every_command_of_the_table_exists() -> None:
    commands = set(re.findall(r"^\| `lratlas (\w+)", README, re.MULTILINE))
    assert commands == set(typer.main.get_command(app).commands)  # pyright: ignore[reportAttributeAccessIssue] - a group
