"""The charts of a report in a browser: they draw, show their values, and do what their controls say."""

from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Locator, Page, expect

from browser.browsing import Opener, Visit
from lratlas.atlas import load
from lratlas.text import format_lr

pytestmark = pytest.mark.xdist_group("browser")

# What is drawn from data, without axes and legends.
MARKS = "svg.marks .role-mark:not(.role-axis *, .role-legend *) path"
# How marks look: where they are, of what shape, how strong.
LOOKS = """
marks => marks.map(mark => ["d", "transform", "opacity"].map(name => mark.getAttribute(name)).join()).sort()
"""
# A point of a mark on the screen: the middle of a symbol or a bar, somewhere on a line.
SOMEWHERE = """
mark => {
  const box = mark.getBoundingClientRect();
  if (!mark.closest(".mark-line")) return [box.x + box.width / 2, box.y + box.height / 2];
  const point = mark.getPointAtLength(0.3 * mark.getTotalLength()).matrixTransform(mark.getScreenCTM());
  return [point.x, point.y];
}
"""


@pytest.fixture
def whole(opened: Opener, study: Path) -> Visit:
    return opened(study)


def test_every_chart_draws_when_it_comes_near_the_window(whole: Visit, study: Path) -> None:
    far = whole.page.locator("figure:has(.chart)").last
    assert far.get_attribute("data-drawn") is None
    names = whole.draw_all()
    assert sorted(names) == sorted(load(study).charts)
    for name in names:
        sizes = whole.figure(name).locator(MARKS).evaluate_all("marks => marks.map(mark => mark.getTotalLength())")
        assert sum(size > 0 for size in sizes) >= 4, name


def test_pointing_at_a_mark_shows_its_values(whole: Visit) -> None:
    for name in whole.draw_all():
        figure = whole.figure(name)
        values = pointed_at(figure)
        assert len(values) >= 2, name
        assert any(character.isdigit() for value in values.values() for character in value), name


def test_values_are_those_of_the_seed_that_is_chosen(whole: Visit, study: Path) -> None:
    figure, runs = whole.figure("accuracy"), load(study).table("runs").filter(pl.col("plr2").is_null())
    for label, option in (("seed", "1"), ("k", "none"), ("FLR", "3.16e-4")):
        before = looks(figure)
        control(figure, label).select_option(label=option)
        changed(figure, before)
    seen = set[str]()
    for at in (0, -1):
        values = pointed_at(figure, at)
        seen.add(values["series"])
        stage = "pretrain" if values["series"] == "pre-training" else "finetune"
        row = runs.filter(pl.col("plr").map_elements(lr, pl.String) == lr(float(values["PLR"])), seed=1, stage=stage)
        row = row.filter(pl.col("flr").is_null() | pl.col("flr").is_between(3e-4, 3.3e-4))
        assert values["mean"] == f"{row['test_accuracy'].item():.1%}"
    assert seen == {"pre-training", "FLR 3.16e-4"}


def test_every_control_changes_what_is_drawn_and_back(whole: Visit) -> None:
    labels = set[str]()
    for name in whole.draw_all():
        figure = whole.figure(name)
        for select in figure.locator("form.vega-bindings select").all():
            label = select.evaluate("select => select.labels[0].firstChild.textContent.trim()")
            labels.add(label)
            before, chosen = looks(figure), select.input_value()
            options = select.locator("option").evaluate_all("all => all.map(one => one.value)")
            select.select_option([value for value in options if value != chosen][-1])
            changed(figure, before)
            select.select_option(chosen)
            restored(figure, before)
    assert labels == {"seed", "FLR", "k"}


@pytest.mark.parametrize(("chart", "name"), [("geometry", ".role-legend-label text"), ("accuracy", "text:text('SWA')")])
def test_a_click_on_a_name_singles_out_and_lets_go(whole: Visit, chart: str, name: str) -> None:
    figure = whole.figure(chart)
    before = looks(figure)
    entry = figure.locator(name).first
    entry.click()
    faint = changed(figure, before)
    assert len(faint) == len(before)
    entry.click()
    restored(figure, before)


def test_alt_and_the_wheel_zoom_a_double_click_undoes_it_and_the_wheel_alone_scrolls(whole: Visit) -> None:
    figure, page = whole.figure("accuracy"), whole.page
    before, box = looks(figure), figure.locator("svg.marks").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    page.keyboard.down("Alt")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Alt")
    changed(figure, before)
    page.mouse.dblclick(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    restored(figure, before)
    top = page.evaluate("scrollY")
    page.mouse.wheel(0, 50)
    page.wait_for_function("top => scrollY > top", arg=top)
    assert looks(figure) == before


def test_panels_stand_one_below_the_other_in_a_narrow_window(whole: Visit) -> None:
    figure, titles = whole.figure("geometry"), ("angle, radians", "train error barrier", "test error barrier")

    def lefts() -> list[float]:
        boxes = [figure.get_by_text(title, exact=True).bounding_box() for title in titles]
        return [box["x"] for box in boxes if box]

    assert lefts()[2] - lefts()[0] > 300
    whole.page.set_viewport_size({"width": 400, "height": 900})
    for _ in range(400):
        if len(lefts()) == 3 and max(lefts()) - min(lefts()) < 30:
            return
        whole.page.wait_for_timeout(50)
    raise AssertionError(f"The panels stand at {lefts()}.")


def test_pointing_at_an_lr_shows_it_in_every_chart(whole: Visit) -> None:
    figure, other = whole.figure("accuracy"), whole.figure("traces")
    faint = "lines => lines.filter(line => Number(line.getAttribute('opacity')) < 0.5).length"
    lines = other.locator("svg.marks .mark-line path")
    assert lines.evaluate_all(faint) == 0
    whole.figure("accuracy")
    pointed_at(figure)
    for _ in range(200):
        if lines.evaluate_all(faint) == lines.count() - 2:  # one of each panel stays
            return
        whole.page.wait_for_timeout(25)
    raise AssertionError("Other LRs never stepped back.")


def control(figure: Locator, label: str) -> Locator:
    name = figure.page.locator(".vega-bind-name", has_text=label)
    return figure.locator(".vega-bind", has=name).locator("select")


def lr(value: float) -> str:
    return format_lr(value, digits=3)


def looks(figure: Locator) -> list[str]:
    return figure.locator(MARKS).evaluate_all(LOOKS)


def until(figure: Locator, done: Callable[[list[str]], bool]) -> list[str]:
    """How the marks look as soon as they do as they should."""
    for _ in range(800):
        if done(now := looks(figure)):
            return now
        figure.page.wait_for_timeout(25)
    raise AssertionError("The drawing never came to look as it should.")


def changed(figure: Locator, before: list[str]) -> list[str]:
    return until(figure, lambda now: now != before)


def restored(figure: Locator, before: list[str]) -> None:
    until(figure, lambda now: now == before)


def pointed_at(figure: Locator, at: int = 0) -> Mapping[str, str]:
    """What is shown where a mark is pointed at, a symbol if there are any."""
    symbols = figure.locator("svg.marks .mark-symbol.role-mark path")
    marks = symbols if symbols.count() else figure.locator(MARKS)
    x, y = marks.nth(at).evaluate(SOMEWHERE)
    return tooltip(figure.page, x, y)


def tooltip(page: Page, x: float, y: float) -> Mapping[str, str]:
    page.mouse.move(x - 1, y)
    page.mouse.move(x, y)
    shown = page.locator("#vg-tooltip-element.visible")
    expect(shown).to_be_visible()
    rows = shown.locator("tr").evaluate_all("rows => rows.map(row => [...row.cells].map(cell => cell.textContent))")
    return {key.strip().rstrip(":"): value.strip() for key, value in rows}
