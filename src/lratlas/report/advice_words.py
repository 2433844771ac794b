"""The words that go with the charts of a search."""

import polars as pl

from lratlas.report.advice_courses import branches_data, courses_data
from lratlas.report.advice_data import kinds_of_weights, more_is_better, regimes_data, signs_data
from lratlas.report.texts import Text
from lratlas.search.advice import Advice

_REGIMES = {
    "1": "the loss converges",
    "2": "the loss is in equilibrium",
    "3": "the loss diverges, or nothing is learned",
}


def advice_text(advice: Advice) -> Text:
    """The words for `advice_chart`."""
    signs = signs_data(advice)
    found = signs["sign"].unique().to_list()
    words = [f"After each number of steps, on held-out data; {better(advice)}."]
    if advice.lr is not None:
        words.append("The vertical line is the LR to use.")
    if advice.low is not None and advice.high is not None and advice.low < advice.high:
        words.append("The grey band is the good range." if advice.lr is not None else "The grey band is LRs that tie.")
    if regimes := regimes_data(advice)["regime"].to_list():
        named = "; ".join(f"{regime}, {_REGIMES[regime]}" for regime in regimes)
        words.append(
            f"Shaded: {named}. A dashed line is a threshold, in the gap between the two LRs that were told apart."
        )
    if "annealed" in found:
        words.append("Diamonds: the same training with its LR taken to zero over its last fifth.")
    if "failed" in found:
        words.append("Crosses: the training failed.")
    if "off the scale" in found:
        words.append("The scale ends not far from the best; triangles at its edge are values beyond it.")
    if len(kinds_of_weights(advice)) > 1:
        words.append("LRs are ranked by averaged weights; last weights are those at the end of a segment.")
    return Text(
        heading="Validation metric against the LR",
        caption=" ".join(words),
        alt="Line chart of the validation metric against the learning rate on a log axis, one line for each number of "
        "steps, from light for the fewest to dark for the most. The good range and the recommended learning rate are "
        "marked; failed learning rates are crosses at the edge. The values are in the table below.",
    )


def course_text(advice: Advice) -> Text:
    """The words for `course_chart`."""
    rest = courses_data(advice).filter(~pl.col("went_on") & ~pl.col("outside")).height
    left = " Circles: LRs that did not go on." if rest else ""
    dashed = " Dashed: the annealed branch." if branches_data(advice).height else ""
    return Text(
        heading="Which LRs went on, and for how long",
        caption=f"A line for each LR that was trained for more than the first share, first seed; {better(advice)}. It"
        f" ends, with the LR beside it, where the LR was given up for better ones.{left}{dashed}",
        alt="Line chart of the validation metric against the share of a full training, doubling along the axis, one "
        "line for each learning rate that went on; lines end where the learning rate was given up.",
    )


def better(advice: Advice) -> str:
    """Which way the metric is to be read."""
    return "higher is better" if more_is_better(advice) else "lower is better"
