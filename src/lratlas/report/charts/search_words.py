"""Titles and captions of the charts of a search."""

from collections.abc import Iterator

import polars as pl

from lratlas.report.charts.search_data import (
    anneal_data,
    curves_data,
    errors_data,
    expected_data,
    kinds_of_weights,
    more_is_better,
    regimes_data,
    signs_data,
    window,
)
from lratlas.report.frames import lr_column, spread
from lratlas.report.theme import Text
from lratlas.search.advice import Advice
from lratlas.text import format_lr

_NAME = 0.045  # height of a name next to a line, as a share of the scale


def courses_data(advice: Advice) -> pl.DataFrame:
    """The metric over the share of a full training, a line for each LR, first seed.

    Returns:
        One row per LR and rung: ``weights``, ``lr``, ``steps``, ``share`` (of a full training), ``part`` (the share in
        words), ``metric``, ``drawn``, ``outside``, ``went_on`` (trained for more than its first rung),
        ``is_last`` (the row is the end of its line), ``fate`` (of the LR afterwards).
    """
    data = curves_data(advice).filter(pl.col("seed") == pl.col("seed").min().over("lr"))
    longest = pl.lit(data["steps"].max(), pl.Int64)
    end = pl.col("steps").max().over("weights", "lr")
    fates = (
        pl.when(pl.col("lr").is_in(_lrs_failed_later(advice)))
        .then(pl.lit("failed after ") + pl.col("last_part"))
        .when(end == longest)
        .then(pl.lit("trained the longest"))
        .otherwise(pl.lit("dropped after ") + pl.col("last_part"))
    )
    return (
        data.with_columns(
            share=pl.col("steps") / advice.steps,
            went_on=pl.col("steps").n_unique().over("weights", "lr") > 1,
            is_last=pl.col("steps") == end,
            last_part=pl.col("part").sort_by("steps").last().over("weights", "lr"),
        )
        .with_columns(fate=fates)
        .select("weights", "lr", "steps", "share", "part", "metric", "drawn", "outside", "went_on", "is_last", "fate")
        .sort("weights", "lr", "steps")
    )


def names_data(advice: Advice) -> pl.DataFrame:
    """Places for the names of continued LRs, next to the ends of their lines and apart from each other.

    Returns:
        One row per line that ends within the scale: ``weights``, ``lr``, ``share``, ``drawn`` (the height),
        ``name``.
    """
    shown, courses = window(advice), courses_data(advice)
    ends = courses.filter(pl.col("is_last") & pl.col("went_on") & ~pl.col("outside")).select(
        "weights", "lr", "share", "drawn"
    )
    ends = ends.with_columns(height=pl.col("drawn").map_elements(shown.height, return_dtype=pl.Float64))
    groups = ends.sort("height").partition_by("weights", "share", maintain_order=True)
    placed = [group.with_columns(height=pl.Series(spread(group["height"].to_list(), gap=_NAME))) for group in groups]
    names = pl.concat([ends.clear(), *placed]).with_columns(name=lr_column("lr"))
    return names.with_columns(drawn=pl.col("height").map_elements(shown.at, return_dtype=pl.Float64)).drop("height")


def branches_data(advice: Advice) -> pl.DataFrame:
    """The annealed ends, each as a line from the metric at the start of the decay.

    Returns:
        Two rows per branch: ``weights`` (of the metric at its start), ``lr``, ``steps``, ``share``, ``metric``,
        ``drawn``, ``end`` (whether the row is the end of the branch).
    """
    courses = courses_data(advice)
    tips = anneal_data(advice).select("lr", "steps", "metric", share=pl.col("steps") / advice.steps)
    tips = tips.with_columns(drawn=window(advice).within())
    before = courses.join(tips.select("lr", tip="steps"), on="lr").filter(pl.col("steps") < pl.col("tip"))
    left = before.group_by("weights", "lr", "tip").agg(pl.all().sort_by("steps").last()).with_columns(end=False)
    own = tips.join(left.select("weights", "lr", steps="tip"), on=["lr", "steps"]).with_columns(end=True)
    names = ["weights", "lr", "steps", "share", "metric", "drawn", "end"]
    return pl.concat([left.select(names), own.select(names)]).sort("weights", "lr", "end")


def projection_data(advice: Advice) -> pl.DataFrame:
    """The lines of the projection: from the ends of the LRs within the noise of the best to the expected value.

    Returns:
        Two rows per LR: ``weights``, ``lr``, ``share``, ``drawn``; none without an expected value.
    """
    expected = expected_data(advice)
    near = errors_data(advice).filter("longest", "near")["lr"]
    ends = courses_data(advice).filter(pl.col("is_last"), pl.col("lr").is_in(near.implode()), ~pl.col("outside"))
    starts = ends.select("weights", "lr", "share", "drawn")
    if expected.is_empty():
        return starts.clear()
    return pl.concat([starts, starts.with_columns(share=pl.lit(1.0), drawn=pl.lit(expected["drawn"][0]))])


def advice_in_words(advice: Advice) -> str:
    """Headline: the finding of the search about the LRs."""
    if advice.low is None or advice.high is None:
        return {"not_learned": "No LR has learned anything yet", "diverged": "All LRs diverged"}.get(
            advice.verdict, "Validation metric against the LR"
        )
    low, high = format_lr(advice.low), format_lr(advice.high)
    if advice.lr is None:
        return f"No LR from {low} to {high} is clearly better than the others"
    if low == high:
        return f"Best at {format_lr(advice.lr)}"
    return f"Best around {format_lr(advice.lr)}; good range {low} to {high}"


def course_in_words(advice: Advice) -> str:
    """Headline: the number of LRs trained for each length."""
    courses = courses_data(advice)
    if courses.is_empty():
        return "Which LRs continued, and for how long"
    longest = courses.filter(pl.col("steps") == pl.col("steps").max())
    few, all_lrs, part = longest["lr"].n_unique(), advice.evidence["lr"].n_unique(), longest["part"][0]
    whole = "a full training" if part == "1" else f"{part} of a full training"
    return f"{few} of {all_lrs} LRs {'was' if few == 1 else 'were'} trained for {whole}"


def _lrs_failed_later(advice: Advice) -> list[float]:
    """LRs that failed after a successful segment."""
    constant = advice.evidence.filter(~pl.col("annealed"))
    well = constant.filter(pl.col("failure").is_null())["lr"]
    return constant.filter(pl.col("failure").is_not_null() & pl.col("lr").is_in(well.implode()))["lr"].to_list()


_REGIMES = {
    "1": "the loss converges",
    "2": "the loss is in equilibrium",
    "3": "the loss diverges, or nothing is learned",
}


def advice_text(advice: Advice) -> Text:
    """The words of `advice_chart`."""
    return Text(
        heading=advice_in_words(advice),
        caption=" ".join(_sentences(advice)),
        alt="Line chart of the validation metric against the learning rate on a log axis, one line for each length,"
        " from light for the shortest to dark for the longest. The recommended learning rate and the good range are"
        " marked where there are any; failed ones are crosses at the edge. The values are in the table below.",
    )


def _sentences(advice: Advice) -> Iterator[str]:
    signs = signs_data(advice)["sign"].unique().to_list()
    if not curves_data(advice).is_empty():
        yield f"Lines: measured on validation data after each share of a full training; {better(advice)}."
    if advice.lr is not None:
        band = "; the grey band is the good range" if advice.low != advice.high else ""
        yield f"The vertical line is the LR to use{band}."
    elif advice.low is not None:
        yield "The grey band holds the LRs that tie."
    if errors_data(advice)["low"].count():
        yield (
            "Bars: at each length the 90% interval of an LR's difference to the best one. Dotted: the best metric of"
            " the longest comparison; an LR whose bar reaches it is within the noise of the best one."
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
    """The words of `course_chart`."""
    rest = courses_data(advice).filter(~pl.col("went_on") & ~pl.col("outside")).height
    left = " Circles: LRs that did not continue." if rest else ""
    dashed = " Dashed: the end with an annealed LR." if branches_data(advice).height else ""
    expected = (
        " Green: projected from the LRs within the noise of the best one (dashed), not measured, with its 90% interval;"
        " each further doubling of the length is assumed to gain less than the one before it."
        if expected_data(advice).height
        else ""
    )
    return Text(
        heading=course_in_words(advice),
        caption=f"A line for each LR that was trained for more than the first share, first seed; {better(advice)}. It"
        f" ends, with its LR, where the LR was dropped for better ones.{left}{dashed}{expected}",
        alt="Line chart of the validation metric against the share of a full training, doubling along the axis, one "
        "line for each learning rate that continued; lines end where the learning rate was dropped.",
    )


def better(advice: Advice) -> str:
    """The direction in which the metric is better, in words."""
    return "higher is better" if more_is_better(advice) else "lower is better"
