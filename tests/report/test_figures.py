"""Figures are as wide as a paper's columns, readable at that size, and carry their font."""

import base64
import io
import re
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from pypdf import PdfReader

from lratlas.data.shapes import SHAPES
from lratlas.report.charts.catalog import CHARTS
from lratlas.report.charts.pictures import ticks_chart
from lratlas.report.figures import figure_pdf, figure_svg
from lratlas.report.theme import Drawing
from lratlas.tables import Tables

INCH = 72  # points
ONE_PANEL = {"accuracy", "last_tenth", "loss", "ticks"}
POINTS = pl.DataFrame({"x1": [0.0, 1.0], "x2": [0.5, -1.0], "label": [1, 0], "kind": ["class 1", "class 0"]})


@pytest.fixture(scope="session")
def drawn(charts: dict[str, Drawing]) -> dict[str, Drawing]:
    return {**charts, "ticks": _ticks()}


@pytest.mark.parametrize("name", [*CHARTS, "ticks"])
def test_a_pdf_is_one_or_two_columns_wide_and_embeds_its_fonts(drawn: dict[str, Drawing], name: str) -> None:
    (page,) = PdfReader(io.BytesIO(figure_pdf(drawn[name]))).pages
    assert float(page.mediabox.width) == pytest.approx((3.25 if name in ONE_PANEL else 6.75) * INCH, abs=0.01)
    assert float(page.mediabox.height) < 4.6 * INCH
    names = _embedded(page)
    assert names
    assert all("Arimo" in name for name in names)


@pytest.mark.parametrize("name", [*CHARTS, "ticks"])
def test_lettering_is_six_points_or_more(drawn: dict[str, Drawing], name: str) -> None:
    svg = figure_svg(drawn[name])
    size = re.search(r'width="([\d.]+)pt" height="[\d.]+pt" viewBox="0 0 ([\d.]+)', svg)
    assert size
    scale = float(size[1]) / float(size[2])
    letters = {float(found) for found in re.findall(r'font-size="([\d.]+)px"', svg)}
    assert letters
    assert min(letters) * scale >= 6


@pytest.mark.parametrize(("name", "weights"), [("accuracy", ["normal", "bold"]), ("traces", ["normal"])])
def test_an_svg_holds_the_font_of_each_weight_that_it_uses(
    drawn: dict[str, Drawing], name: str, weights: list[str]
) -> None:
    svg = figure_svg(drawn[name])
    faces = re.findall(r"@font-face{font-family:Arimo;font-weight:(\w+);src:url\(data:font/ttf;base64,([^)]+)\)", svg)
    assert [weight for weight, _ in faces] == weights
    assert all(base64.b64decode(font).startswith(b"\x00\x01\x00\x00") for _, font in faces)  # as every TrueType file
    assert {family.split(",")[0] for family in re.findall(r'font-family="([^"]+)"', svg)} == {"Arimo"}
    assert "http" not in svg.replace("http://www.w3.org/", "")


@pytest.mark.parametrize("name", CHARTS)
def test_a_figure_has_no_controls_and_no_invisible_marks(drawn: dict[str, Drawing], name: str) -> None:
    svg = figure_svg(drawn[name])
    assert "<select" not in svg
    assert not re.search(r'<path [^>]*[^-]opacity="0"', svg)


def test_a_figure_shows_the_means_over_seeds(tables: Tables, drawn: dict[str, Drawing]) -> None:
    svg = figure_svg(drawn["accuracy"])
    shown = sorted(float(value) for value in re.findall(r"test accuracy: ([\d.]+)%; series: pre-training", svg))
    means = tables["runs"].filter(stage="pretrain").group_by("plr").agg(pl.col("test_accuracy").mean())
    assert sorted(set(shown)) == pytest.approx(sorted(100 * means["test_accuracy"]), rel=1e-5)


def test_a_legend_of_many_lines_stays_within_the_column(make_study: Callable[..., dict[str, pl.DataFrame]]) -> None:
    tables = make_study(seeds=1)
    tuned = tables["runs"].filter(stage="finetune").drop_nulls("flr")
    more = [tuned.with_columns(pl.col("flr") * 1.1**i) for i in range(1, 5)]
    chart = CHARTS["accuracy"]({**tables, "runs": pl.concat([tables["runs"], *more])})
    box = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', figure_svg(chart))
    assert box
    assert float(box[1]) == 3.25 * INCH
    assert float(box[2]) < 3.6 * INCH


@pytest.mark.parametrize("sign", "−→–é√λ")
def test_the_font_has_the_signs_of_charts(sign: str) -> None:
    (page,) = PdfReader(io.BytesIO(figure_pdf(_ticks().properties(title=f"a {sign} b")))).pages
    assert all("Arimo" in name for name in _embedded(page))


def _ticks() -> Any:
    return ticks_chart(POINTS, SHAPES["tick"], margin=0.1)


def _embedded(page: Any) -> list[str]:
    """The names of a page's fonts, each with its outlines in the file."""
    fonts = [font["/DescendantFonts"][0]["/FontDescriptor"] for font in page["/Resources"]["/Font"].values()]
    assert all(font["/FontFile2"].get_data() for font in fonts)
    return [font["/FontName"] for font in fonts]
