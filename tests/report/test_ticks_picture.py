"""The picture of a feature: what each point is, where the curves run, and how wide the margin is drawn."""

import re

import numpy as np
import pytest

from lratlas.data.shapes import SHAPES, boundary_distance
from lratlas.data.ticks import ticks
from lratlas.errors import StudyError
from lratlas.report.charts.pictures import boundary_lines, feature_points, ticks_chart
from lratlas.report.figures import figure_svg

DATA = ticks(seed=1, train=100, test=2, features=3, single=200)
POINTS = feature_points(DATA.train, DATA.singles, SHAPES["tick"], margin=0.1)


def test_points_are_the_training_set_by_class_and_points_on_the_curves_of_either() -> None:
    informative = POINTS.filter(~POINTS["kind"].str.contains("uninformative"))
    assert np.array_equal(informative.select("x1", "x2").to_numpy(), DATA.train[0][:, :2].numpy())
    # The tick's own rule: class 0 lies between x2 = |x1| - 2 and x2 = |x1|.
    depth = (informative["x1"].abs() - informative["x2"]).to_numpy()
    assert np.array_equal(informative["kind"] == "class 0", (depth > 0) & (depth < 2))
    others = POINTS.slice(100)
    depth = (others["x1"].abs() - others["x2"]).to_numpy()
    assert np.minimum(abs(depth), abs(depth - 2)).max() < 1e-6
    assert {*others["kind"]} == {"class 0, uninformative", "class 1, uninformative"}


def test_training_points_that_are_uninformative_are_named_so() -> None:
    data = ticks(seed=1, train=200, test=2, features=1, single=2, utilities=0.5)
    points = feature_points(data.train, data.singles, SHAPES["tick"], margin=0.1)
    assert points.height == 200
    assert 50 < points["kind"].str.contains("uninformative").sum() < 150


@pytest.mark.parametrize("name", SHAPES)
def test_the_curves_are_the_boundary_and_between_pieces_the_line_is_broken(name: str) -> None:
    shape = SHAPES[name]
    lines = boundary_lines(shape)
    assert lines["x1"].null_count() == lines["x2"].null_count() == len(shape.segments) + len(shape.radii)
    assert boundary_distance(shape, lines.drop_nulls().select("x1", "x2").to_numpy()).max() < 1e-9


@pytest.mark.parametrize("margin", [0.1, 0.25])
def test_the_margin_is_as_wide_as_its_distance_on_the_axes(margin: float) -> None:
    svg = figure_svg(ticks_chart(POINTS, SHAPES["tick"], margin=margin))
    widths = [
        float(width) for width in re.findall(r'aria-roledescription="line mark"[^>]*stroke-width="([\d.]+)"', svg)
    ]
    # The curves go through (0, 0) and (2, 2) in the middle and at the corner of the square.
    side = max(float(width) for width in re.findall(r'class="background"[^>]*d="M[\d.]+,[\d.]+h([\d.]+)', svg))
    assert max(widths) == pytest.approx(side * 2 * margin / 4)


def test_every_kind_of_point_is_in_the_legend() -> None:
    svg = figure_svg(ticks_chart(POINTS, SHAPES["tick"], margin=0.1))
    for kind in ("class 0", "class 1", "class 0, uninformative", "class 1, uninformative"):
        assert svg.count(f">{kind}</text>") == 1


def test_no_points_are_refused() -> None:
    with pytest.raises(StudyError, match="needs points"):
        ticks_chart(POINTS.clear(), SHAPES["tick"], margin=0.1)
