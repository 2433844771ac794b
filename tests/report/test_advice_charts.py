"""The drawings of a search: their marks, axes and words."""

import math
from typing import Any

import pytest

from lratlas.report.charts.advice import advice_chart, advice_in_words, advice_text
from lratlas.report.charts.course import course_chart, course_text, projection_data
from lratlas.report.charts.metric_scale import window
from lratlas.report.figures import figure_pdf, figure_svg
from lratlas.search.advice import Advice
from lratlas.search.regimes import Bracket
from report.search_helpers import advice, annealed, compared, row, searched, without_lr

PLAIN = advice(row(0.1, 100, 0.8), row(0.2, 100, 0.85), expected=None)
MARKED = advice(
    *(row(10.0**power, 100, metric, value=metric - 0.02) for power, metric in ((-4, -9.0), (-3, 0.8), (-2, 0.9))),
    *(row(10.0**power, 200, 0.91) for power in (-3, -2)),
    row(0.1, 100, 0.85, value=0.5),
    row(1.0, 100, None, failure="it broke"),
    annealed(0.01, 250, 0.95),
    levels=[compared(1e-3, 200, 0.91), compared(1e-2, 200, 0.91)],
    lr=0.0123,
    low=1e-3,
    high=1e-2,
    expected=0.93,
    expected_low=0.9,
    expected_high=0.96,
    convergence=Bracket(below=1e-3, above=1e-2),
    divergence=Bracket(below=0.1, above=1.0),
)


def layers(drawn: dict[str, Any], mark: str) -> list[dict[str, Any]]:
    return [layer for layer in drawn["layer"] if layer["mark"]["type"] == mark]


def rows(drawn: dict[str, Any], layer: dict[str, Any]) -> list[dict[str, Any]]:
    return drawn["datasets"][layer["data"]["name"]]


def texts(drawn: dict[str, Any]) -> list[str]:
    """The words in a chart: those of its data, and those that are written as they are."""
    found = list[str]()
    for layer in layers(drawn, "text"):
        said = layer["encoding"]["text"]
        found += [said["datum"]] if "datum" in said else [each[said["field"]] for each in rows(drawn, layer)]
    return found


def test_the_advice_is_marked() -> None:
    drawn = advice_chart(MARKED).to_dict()
    assert {text.split()[0] for text in texts(drawn)} == {"1", "2", "3", "use", "1/64", "1/32", "expected"}
    thresholds, recommended, best, bars, interval = layers(drawn, "rule")
    assert [each["name"] for each in rows(drawn, thresholds)] == ["convergence threshold", "divergence threshold"]
    assert recommended["encoding"]["x"]["field"] == "lr"
    assert best["encoding"]["y"]["field"] == "drawn_best"
    errors = rows(drawn, bars)
    # The best LR, the smaller one of the two, is not compared with itself.
    assert [(each["lr"], each["low"]) for each in errors] == [(1e-3, None), (1e-2, pytest.approx(0.91 - 0.01645))]
    (expected,) = rows(drawn, interval)
    assert (expected["metric"], expected["low"], expected["high"]) == (0.93, 0.9, 0.96)
    regimes, good = layers(drawn, "rect")
    assert [each["regime"] for each in rows(drawn, regimes)] == ["1", "2", "3"]
    assert rows(drawn, good) == [{"low": 1e-3, "high": 1e-2}]


def test_what_is_not_known_is_not_marked() -> None:
    drawn = advice_chart(PLAIN).to_dict()
    assert layers(drawn, "rect") == []
    assert len(layers(drawn, "rule")) == 1
    caption = advice_text(PLAIN).caption
    words = ("band", "Shaded", "Diamond", "Cross", "Triangle", "averaged", "Dotted", "Green", "logarithmic")
    assert not any(word in caption for word in words)


def test_without_an_lr_none_is_marked() -> None:
    none = advice(row(0.1, 100, 0.8), row(0.2, 100, 0.8), verdict="tie", reason="All tie.", lr=None, low=0.1, high=0.2)
    drawn = advice_chart(none).to_dict()
    assert layers(drawn, "rule") == []
    assert len(layers(drawn, "rect")) == 1
    assert "vertical line" not in advice_text(none).caption
    assert "LRs that tie" in advice_text(none).caption
    nothing = advice(row(0.1, 100, 0.8), verdict="not_learned", reason="Nothing.", lr=None, low=None, high=None)
    assert layers(advice_chart(nothing).to_dict(), "rect") == []
    assert "band" not in advice_text(nothing).caption


def test_the_caption_names_what_is_marked() -> None:
    caption = advice_text(MARKED).caption
    words = ("grey band", "1, the loss", "3, the loss", "Diamond", "Cross", "Triangle", "Dotted", "Green")
    assert all(word in caption for word in words)
    assert "Dashed" in course_text(MARKED).caption
    assert "Green" in course_text(MARKED).caption


def test_lrs_that_tie_are_a_band_without_a_line() -> None:
    levels = [compared(lr, 100, 0.8) for lr in (0.1, 0.2, 0.3)]
    tie = advice(*(row(lr, 100, 0.8) for lr in (0.1, 0.2, 0.3)), levels=levels, **without_lr("tie", low=0.1, high=0.3))
    drawn = advice_chart(tie).to_dict()
    (band,) = layers(drawn, "rect")
    assert rows(drawn, band) == [{"low": 0.1, "high": 0.3}]
    assert "LRs that tie" in band["encoding"]["tooltip"][0]["title"]
    assert texts(drawn) == ["1/64"]  # of a full training
    caption = advice_text(tie).caption
    assert "The grey band marks the LRs that tie." in caption
    assert "LR to use" not in caption
    assert "1e-1" in figure_svg(advice_chart(tie))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"lr": 0.2, "low": 0.1, "high": 0.3}, "Best around 2e-1; good range 1e-1 to 3e-1"),
        ({"lr": 0.2, "low": 0.2, "high": 0.2}, "Best at 2e-1"),
        (without_lr("tie", low=0.1, high=0.3), "No LR from 1e-1 to 3e-1 is clearly better than the others"),
        (without_lr("not_learned"), "No LR has learned anything yet"),
        (without_lr("diverged"), "All LRs diverged"),
    ],
)
def test_the_headline_claims_what_the_verdict_says(fields: dict[str, Any], said: str) -> None:
    made = advice(*(row(lr, 100, 0.8) for lr in (0.1, 0.2, 0.3)), **fields)
    assert advice_in_words(made) == said
    assert advice_chart(made).to_dict()["usermeta"]["heading"] == said


def test_the_projection_starts_where_the_lrs_near_the_best_end() -> None:
    levels = [compared(0.1, 200, 0.8), compared(0.2, 200, 0.7, near=False)]
    rows_ = [row(lr, steps, 0.6) for lr in (0.1, 0.2) for steps in (100, 200)]
    made = advice(*rows_, levels=levels, expected=0.9, expected_low=0.85, expected_high=0.95)
    assert projection_data(made).select("lr", "share").rows() == [(0.1, 200 / 6400), (0.1, 1.0)]
    assert projection_data(advice(*rows_, levels=levels, **without_lr("tie"))).is_empty()


def test_where_all_lrs_failed_there_are_crosses() -> None:
    broken = [row(lr, 100, None, failure="the loss is not finite") for lr in (0.1, 1.0)]
    made = advice(*broken, best=math.nan, **without_lr("diverged"))
    drawn = advice_chart(made).to_dict()
    (signs,) = [layer for layer in drawn["layer"] if "shape" in layer["encoding"]]
    assert [each["sign"] for each in rows(drawn, signs)] == ["failed", "failed"]
    svg = figure_svg(advice_chart(made))
    assert "failed" in svg
    assert "share of a" not in svg
    assert advice_text(made).caption == "Crosses: the training failed."


def test_lines_grow_darker_with_the_steps() -> None:
    (line,) = layers(advice_chart(searched()).to_dict(), "line")
    scale = line["encoding"]["color"]["scale"]
    assert scale["domain"] == ["1/64", "1/32", "1/16", "1/8", "1/4"]
    greens = [int(colour[3:5], 16) for colour in scale["range"]]
    assert greens == sorted(greens, reverse=True)


@pytest.mark.parametrize(("direction", "words"), [("maximize", "higher is better"), ("minimize", "lower is better")])
def test_both_directions_say_which_way_is_better(direction: str, words: str) -> None:
    found = searched(direction=direction)
    (line,) = layers(advice_chart(found).to_dict(), "line")
    y = line["encoding"]["y"]
    assert y["title"] == f"validation metric ({words})"
    assert y["scale"]["domain"] == window(found).domain
    assert words in advice_text(found).caption


def test_losses_that_are_awful_point_upwards_from_the_top() -> None:
    found = searched(direction="minimize")
    drawn = advice_chart(found).to_dict()
    (signs,) = [layer for layer in drawn["layer"] if "shape" in layer["encoding"]]
    shapes = dict(zip(*(signs["encoding"]["shape"]["scale"][end] for end in ("domain", "range")), strict=True))
    assert shapes["off the scale"] == "triangle-up"
    awful = [each for each in rows(drawn, signs) if each["sign"] == "off the scale" and each["metric"] > 1e6]
    assert awful
    assert all(window(found).height(each["drawn"]) > 0.5 for each in awful)


def test_labels_of_a_log_scale_are_metrics() -> None:
    wide = advice(*(row(0.1 * number, 100, 1 - 0.5**number) for number in range(1, 6)), expected=None)
    (line,) = layers(advice_chart(wide).to_dict(), "line")
    y = line["encoding"]["y"]
    assert (y["scale"]["type"], y["axis"]["values"]) == ("log", [0.05, 0.1, 0.2, 0.5])
    assert y["axis"]["labelExpr"].startswith("format(1.0 - datum.value")
    svg = figure_svg(advice_chart(wide))
    assert all(f">{label}<" in svg for label in ("0.5", "0.8", "0.9", "0.95"))
    assert "logarithmic in the distance to the best possible metric, 1." in advice_text(wide).caption


def test_weights_can_be_chosen_where_both_were_told() -> None:
    def bound(made: Advice) -> list[str]:
        found = [*advice_chart(made).to_dict()["params"], *course_chart(made).to_dict()["params"]]
        return [each["name"] for each in found if "input" in each.get("bind", {})]

    assert bound(MARKED) == ["weights_advice", "weights_course"]
    assert bound(PLAIN) == []


def test_the_course_has_a_line_for_each_lr_that_went_on() -> None:
    drawn = course_chart(MARKED).to_dict()
    line = layers(drawn, "line")[0]
    assert line["encoding"]["color"]["scale"]["domain"] == ["1e-3", "1e-2"]
    x = line["encoding"]["x"]["scale"]
    assert (x["type"], x["base"]) == ("log", 2)
    assert x["domain"][0] < 1 / 64 < 250 / 6400 < x["domain"][1]


@pytest.mark.parametrize("made", [PLAIN, MARKED, advice(row(0.1, 100, 0.5))], ids=["plain", "marked", "single"])
def test_it_draws(made: Advice) -> None:
    svg = figure_svg(advice_chart(made))
    assert "initial LR" in svg
    assert "share of a" in svg
    assert figure_pdf(advice_chart(made)).startswith(b"%PDF")
    assert "share of a full training" in figure_svg(course_chart(made))
