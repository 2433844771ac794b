"""What the pages say of numbers, tables and names is what the code has."""

import re
from dataclasses import fields
from typing import Any

import polars as pl
import pytest
import typer.main

from docs.pages import DOCS, ROOT, parsed, table, text_of
from lratlas.analysis import regimes
from lratlas.analysis.estimates import COVERAGE
from lratlas.cli.app import app
from lratlas.config.preset_names import PRESETS
from lratlas.config.presets import preset
from lratlas.config.sections import MeasureSpec
from lratlas.report.charts.catalog import CHARTS
from lratlas.tables import SCHEMAS
from lratlas.thresholds import DEFAULTS, GEOMETRY_COUNT, Thresholds

REGIMES, FOLDER, ARCHITECTURE = (text_of(f"docs/{name}.md") for name in ("regimes", "folder", "architecture"))
TYPES = {"text": pl.String(), "number": pl.Float64(), "integer": pl.Int64(), "true or false": pl.Boolean()}


def test_the_page_on_regimes_has_the_thresholds_and_their_defaults() -> None:
    said = {name: float(cells[0]) for name, cells in table(REGIMES, "threshold").items()}
    assert said == {field.name: getattr(DEFAULTS, field.name) for field in fields(Thresholds)}


def test_the_page_on_regimes_has_the_other_numbers() -> None:
    for sentence in (
        f"mean losses of {regimes.BLOCKS} blocks of the last half",
        f"fewer than {regimes.FEWEST_BLOCKS} blocks",
        f"at {MeasureSpec().interpolation} points (`measure.interpolation`)",
        f"a {COVERAGE:.0%} interval for the median",
        f"the weight average SWA-{GEOMETRY_COUNT}",
    ):
        assert sentence in REGIMES.replace("\n", " "), sentence
    assert set(re.findall(r"`([a-z]+_[a-z]+)`", REGIMES)) <= {field.name for field in fields(Thresholds)}


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_page_on_the_folder_has_the_columns_of_a_table(name: str) -> None:
    section = FOLDER.partition(f"\n### {name}\n")[2].partition("\n### ")[0] + "\n"
    said = {column: TYPES[cells[0]] for column, cells in table(section, "column").items()}
    assert list(said.items()) == list(SCHEMAS[name].items())


def test_the_page_on_the_folder_has_no_other_tables() -> None:
    assert re.findall(r"^### (.+)$", FOLDER, re.MULTILINE) == list(SCHEMAS)


def test_the_page_on_the_report_has_all_charts() -> None:
    assert table(text_of("docs/report.md"), "chart").keys() == CHARTS.keys()


def test_what_the_page_on_the_architecture_names_is_there() -> None:
    package = ROOT / "src" / "lratlas"
    for path in re.findall(r"`([a-z_]+/(?:[a-z_]+\.py)?|[a-z_]+\.py)`", ARCHITECTURE):
        assert (package / path).exists() or (ROOT / path).exists(), path
    named = re.findall(r"`(\w+)`(?: and `(\w+)`)? (?:of|in) `([a-z_/]+\.py)`", ARCHITECTURE)
    assert len(named) > 8
    for first, second, path in named:
        text = (package / path).read_text(encoding="utf-8")
        for name in filter(None, (first, second)):
            assert re.search(rf"^(class |def )?{name}\b", text, re.MULTILINE), f"{name} of {path}"


def test_the_figures_of_the_paper_are_made_by_commands_that_are_there() -> None:
    text = text_of("docs/paper.md")
    commands = re.findall(r"lratlas reproduce [^\n`]+", text)
    assert len(commands) > 8
    for command in commands:
        name, asked = parsed(command)
        assert name == "reproduce"
        assert preset(asked["preset"], measure=asked["measure"] or ()).pretrain.lrs
    for name in re.findall(r"`([a-z]+[0-9]*-[a-z0-9-]+)`", text):
        assert name in PRESETS


def test_every_figure_of_the_paper_has_its_place() -> None:
    text = text_of("docs/paper.md")
    named = set[int]()
    for words in re.findall(r"^(?:## Figures? |\| |Figures )([\d ,–toand]+)", text, re.MULTILINE):
        spans = re.findall(r"(\d+)(?:(?:–| to )(\d+))?", words)
        named |= {figure for first, last in spans for figure in range(int(first), int(last or first) + 1)}
    assert named >= set(range(1, 27))


def test_commands_in_running_text_are_there() -> None:
    group: Any = typer.main.get_command(app)
    for path in [*DOCS.glob("*.md"), ROOT / "README.md"]:
        for name in re.findall(r"`lratlas (\w+)", path.read_text(encoding="utf-8")):
            assert name in group.commands, f"{name} in {path.name}"


def test_the_citation_has_the_facts_of_the_paper() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    names = re.findall(r"family-names: (\w+)", citation)[:5]
    assert f"> {', '.join(names)}. *Where Do Large Learning Rates Lead Us?* NeurIPS 2024" in text_of("docs/cite.md")


def test_every_row_of_a_table_has_a_cell_for_each_column() -> None:
    for path in [*DOCS.rglob("*.md"), ROOT / "README.md"]:
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for rows in re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE):
            cells = {len(re.findall(r"(?<!\\)\|", row)) for row in rows.splitlines()}
            assert len(cells) == 1, f"{path.name}: {rows.splitlines()[0]}"
