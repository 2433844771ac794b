"""The words that go with the charts of a search."""

from collections.abc import Iterator

import polars as pl

from lratlas.report.advice_courses import branches_data, courses_data
from lratlas.report.advice_data import (
    curves_data,
    errors_data,
    expected_data,
    kinds_of_weights,
    more_is_better,
    regimes_data,
    signs_data,
    window,
)
from lratlas.report.texts import Text
from lratlas.search.advice import Advice

_REGIMES = {
    "1": "the loss converges",
    "2": "the loss is in equilibrium",
    "3": "the loss diverges, or nothing is learned",
}


def advice_text(advice: Advice) -> Text:
    """The words for `advice_chart`."""
    return Text(
        heading="Validation metric against the LR",
        caption=" ".join(_sentences(advice)),
        alt="Line chart of the validation metric against the learning rate on a log axis, one line for each length,"
        " from light for the shortest to dark for the longest. The recommended learning rate and the good range are"
        " marked where there are any; failed ones are crosses at the edge. The values are in the table below.",
    )


def _sentences(advice: Advice) -> Iterator[str]:
    signs = signs_data(advice)["sign"].unique().to_list()
    if not curves_data(advice).is_empty():
        yield f"Solid: measured on validation data after each length of training; {better(advice)}."
    if advice.lr is not None:
        band = "; the grey band is the good range" if advice.low != advice.high else ""
        yield f"The vertical line is the LR to use{band}."
    elif advice.low is not None:
        yield "The grey band holds the LRs that tie."
    if errors_data(advice)["low"].count():
        yield (
            "Dotted: the best metric of the longest comparison. Bars: the 90% interval of each LR's difference to it;"
            " an LR whose bar reaches the dotted line is within the noise of the best one."
        )
    if expected_data(advice).height:
        yield ("Green: not measured but expected of a full training at the recommended LR, with its 90% interval.")
    if window(advice).limit is not None:
        yield f"The scale is logarithmic in the distance to the best possible metric, {window(advice).limit:g}."
    if regimes := regimes_data(advice)["regime"].to_list():
        named = "; ".join(f"{regime}, {_REGIMES[regime]}" for regime in regimes)
        yield f"Shaded: {named}. A dashed line is a threshold, in the gap between two LRs of different regimes."
    if "annealed" in signs:
        yield "Diamonds: the LR was taken to zero over the last fifth of the training."
    if "failed" in signs:
        yield "Crosses: the training failed."
    if "off the scale" in signs:
        yield "Triangles: values beyond the scale, which ends not far from the best."
    if len(kinds_of_weights(advice)) > 1:
        yield "LRs are ranked by averaged weights; last weights are those at the end of a segment."


def course_text(advice: Advice) -> Text:
    """The words for `course_chart`."""
    rest = courses_data(advice).filter(~pl.col("went_on") & ~pl.col("outside")).height
    left = " Circles: LRs that did not continue." if rest else ""
    dashed = " Dashed: the end with an annealed LR." if branches_data(advice).height else ""
    expected = " Green: expected of a full training, with its 90% interval." if expected_data(advice).height else ""
    return Text(
        heading="Which LRs continued, and for how long",
        caption=f"A line for each LR that was trained for more than the first share, first seed; {better(advice)}. It"
        f" ends, with its LR, where the LR was dropped for better ones.{left}{dashed}{expected}",
        alt="Line chart of the validation metric against the share of a full training, doubling along the axis, one "
        "line for each learning rate that continued; lines end where the learning rate was dropped.",
    )


def better(advice: Advice) -> str:
    """Which way the metric is to be read."""
    return "higher is better" if more_is_better(advice) else "lower is better"
