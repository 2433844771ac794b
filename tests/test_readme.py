"""README and pages: Python runs, specs are valid, commands exist, tables and links are right."""

import inspect
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cheaper import unfigured, workerless
from docs.pages import ROOT, blocks, parsed, table, text_of
from lratlas.cli.app import app
from lratlas.config.imaging import image_task
from lratlas.config.preset_names import PRESETS
from lratlas.config.presets import preset
from lratlas.config.spec import spec_from
from lratlas.data.band_ranges import default_bands
from lratlas.search.program.template import placeholders

README, COMMANDS, IMAGES = (text_of(name) for name in ("README.md", "docs/commands.md", "docs/images.md"))
MINIMA, COMMAND = text_of("docs/minima.md"), text_of("docs/command.md")
FIELDS = {"batch_size", "rule", "loss"}  # of the task section, no options


@pytest.fixture
def printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """A function of code: what it prints, run in an empty folder as the main module of this process."""
    monkeypatch.chdir(tmp_path)

    def run(code: str) -> str:
        exec(code, {"__name__": "__main__"})
        return capsys.readouterr().out

    return run


def test_the_python_example_of_explore_runs_and_says_where_training_converges(
    printed: Callable[[str], str], tmp_path: Path
) -> None:
    # Shorter than it is printed, and without the compiler, which takes longer than all the rest.
    found, explored = blocks("python", README)[:2]
    code = found.partition("advice =")[0] + explored
    code = code.replace('"epochs": 30}', '"epochs": 15}, training={"compile": False}')
    code = code.replace('"epochs": 10}', '"epochs": 1}, measure={"interpolation": 3}')
    assert "interpolation" in code
    assert "compile" in code
    with workerless(), unfigured():
        assert "converges" in printed(code)
    assert not list(tmp_path.iterdir())  # the study is in a temporary folder


def test_the_python_example_of_find_advises_an_lr_that_trains(printed: Callable[[str], str]) -> None:
    out = printed(blocks("python", README)[0] + "print(advice.lr, advice.best)")
    assert "Use an initial LR of" in out
    lr, accuracy = map(float, out.splitlines()[-1].split())
    assert 0.01 < lr < 1  # plain SGD on digits: less learns nothing in 30 epochs
    assert accuracy > 0.9  # chance is 0.1


def test_ask_and_tell_finds_the_best_of_a_synthetic_training(printed: Callable[[str], str], tmp_path: Path) -> None:
    synthetic = """
import lratlas, math
def train(segment):
    accuracy = 0.9 - 0.1 * math.log10(segment.lr / 0.02) ** 2 - segment.stop ** -0.5
    return accuracy, accuracy + 0.01
"""
    (asking,) = (block for block in blocks("python", text_of("docs/find.md")) if "finder.ask" in block)
    out = printed(synthetic + asking + "print(finder.advice().lr)")
    assert float(out.splitlines()[-1]) == pytest.approx(0.02, rel=0.3)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_commands_of_find_can_be_typed_as_they_are_printed() -> None:
    (line,) = re.findall(r"^(lratlas find --steps.+)$", COMMANDS, re.MULTILINE)
    for command in (line, *blocks("sh", COMMAND)):
        name, asked = parsed(command)
        assert name == "find"
        assert asked["steps"] in {5_000, 10_000} or asked["epochs"] == 20
        assert placeholders(asked["command"]).resumable


def test_the_spec_is_valid() -> None:
    spec = spec_from(tomllib.loads(blocks("toml", COMMANDS)[0]))
    assert len(spec.pretrain.lrs) == 17


def test_every_command_of_the_table_exists() -> None:
    commands = set(re.findall(r"^\| `lratlas (\w+)", COMMANDS, re.MULTILINE))
    assert commands == set(typer.main.get_command(app).commands)  # pyright: ignore[reportAttributeAccessIssue] - a group
    found: Any = typer.main.get_command(app)
    assert set(re.findall(r"^\| `lratlas data (\w+)", COMMANDS, re.MULTILINE)) == set(found.commands["data"].commands)


def test_the_commands_on_images_can_be_typed_as_they_are_printed() -> None:
    lines = next(block for block in blocks("sh", COMMANDS) if "lratlas data" in block).splitlines()
    commands = [parsed(line) for line in lines]
    assert [name for name, _ in commands] == ["list", "fetch", "reproduce"]
    asked = commands[2][1]
    spec, whole = preset(asked["preset"], scale=asked["scale"]), preset(asked["preset"])
    assert spec.pretrain.epochs == 0.1 * (whole.pretrain.epochs or 0)  # "at a tenth", says the page
    assert spec.task.options["images"] == 5_000


def test_the_specs_of_the_page_on_images_are_valid() -> None:
    whole, part = (tomllib.loads(block) for block in blocks("toml", IMAGES))
    spec = spec_from(whole | part)
    assert spec.task.preset == "images"
    assert spec.measure.bands == ((0, 0), (1, 4), (5, 24), (25, 32))


def test_the_page_on_images_lists_the_options_and_their_defaults() -> None:
    values = {"needed": inspect.Parameter.empty, "all": None}
    said = {
        name: values[cell] if cell in values else None if cell == "none" else json.loads(cell.strip("`"))
        for name, (cell, _) in table(IMAGES, "option").items()
    }
    parameters = inspect.signature(image_task).parameters
    options = {name: value.default for name, value in parameters.items() if not name.startswith("_")}
    assert said == {
        name: value or None if value == () else value for name, value in options.items() if name not in FIELDS
    }


def test_the_page_on_images_lists_the_presets_and_the_default_bands() -> None:
    assert table(IMAGES, "preset").keys() == {name for name in PRESETS if preset(name).task.preset == "images"}
    for size, cells in table(IMAGES, "pixels").items():
        height, width = map(int, size.split(" x "))
        bands = [f"{low}" if low == high else f"{low}–{high}" for low, high in default_bands(height, width)]
        assert cells == bands


def test_the_spec_of_the_page_on_minima_is_valid_and_asks_for_all_of_them() -> None:
    (block,) = blocks("toml", MINIMA)
    spec = spec_from(tomllib.loads(block))
    assert spec.second is not None
    assert spec.refine is not None
    assert spec.measure.convergence
    assert spec.measure.norms
    assert spec.measure.sharpness
    assert spec.measure.great_circle


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/images.md",
        "docs/minima.md",
        "docs/paper.md",
        "docs/claims.md",
        "docs/command.md",
        "docs/script.md",
        "docs/integrations.md",
        "docs/lightning.md",
        "docs/transformers.md",
        "docs/method.md",
        "docs/cluster.md",
        "docs/watch.md",
    ],
)
def test_links_lead_to_files_and_headings(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http)([^)]+)\)", text):
        path, _, heading = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.is_file(), link
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
        assert not heading or heading in {each.lower().replace(" ", "-") for each in headings}, link
