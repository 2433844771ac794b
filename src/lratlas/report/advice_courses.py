"""What a search's chart of eliminations shows, as frames: how each LR did as its training continued."""

from collections.abc import Sequence

import polars as pl

from lratlas.report.advice_data import annealed_data, curves_data, window
from lratlas.report.rows import lr_column
from lratlas.search.advice import Advice

_NAME = 0.045  # height of a name beside a line, as a share of the scale


def courses_data(advice: Advice) -> pl.DataFrame:
    """The metric over the share of a full training, a line for each LR, first seed.

    Returns:
        One row per LR and rung: ``weights``, ``lr``, ``steps``, ``share`` (of a full training), ``part`` (the same in
        words), ``metric``, ``drawn``, ``outside``, ``went_on`` (it was trained for more than its first rung),
        ``is_last`` (the row is the end of its line), ``fate`` (what happened to the LR then).
    """
    data = curves_data(advice).filter(pl.col("seed") == pl.col("seed").min().over("lr"))
    longest = pl.lit(data["steps"].max(), pl.Int64)
    end = pl.col("steps").max().over("weights", "lr")
    fates = (
        pl.when(pl.col("lr").is_in(_failed_later(advice)))
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
    """Places for the names of the LRs that continued, next to the ends of their lines and apart from each other.

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


def spread(places: Sequence[float], *, gap: float) -> list[float]:
    """Places moved apart until neighbours are a gap from each other; a crowd keeps its middle.

    Example:
        >>> spread([1.0, 1.0, 5.0], gap=1.0)
        [0.5, 1.5, 5.0]

    Args:
        places: Ascending.
        gap: The least distance.
    """
    crowds = list[list[float]]()
    for place in places:
        crowds.append([place])
        while len(crowds) > 1 and _first(crowds[-1], gap) - _last(crowds[-2], gap) < gap:
            crowds[-2:] = [crowds[-2] + crowds[-1]]
    return [_first(crowd, gap) + number * gap for crowd in crowds for number in range(len(crowd))]


def branches_data(advice: Advice) -> pl.DataFrame:
    """The annealed ends, each as a line from the metric at which the LR began to fall.

    Returns:
        Two rows per branch: ``weights`` (those whose metric it left), ``lr``, ``steps``, ``share``, ``metric``,
        ``drawn``, ``end`` (whether it is the branch's own).
    """
    courses = courses_data(advice)
    tips = annealed_data(advice).select("lr", "steps", "metric", share=pl.col("steps") / advice.steps)
    tips = tips.with_columns(drawn=window(advice).within())
    before = courses.join(tips.select("lr", tip="steps"), on="lr").filter(pl.col("steps") < pl.col("tip"))
    left = before.group_by("weights", "lr", "tip").agg(pl.all().sort_by("steps").last()).with_columns(end=False)
    own = tips.join(left.select("weights", "lr", steps="tip"), on=["lr", "steps"]).with_columns(end=True)
    names = ["weights", "lr", "steps", "share", "metric", "drawn", "end"]
    return pl.concat([left.select(names), own.select(names)]).sort("weights", "lr", "end")


def _first(crowd: Sequence[float], gap: float) -> float:
    return sum(crowd) / len(crowd) - gap * (len(crowd) - 1) / 2


def _last(crowd: Sequence[float], gap: float) -> float:
    return sum(crowd) / len(crowd) + gap * (len(crowd) - 1) / 2


def _failed_later(advice: Advice) -> list[float]:
    """LRs that failed after a segment that went well."""
    constant = advice.evidence.filter(~pl.col("annealed"))
    well = constant.filter(pl.col("failure").is_null())["lr"]
    return constant.filter(pl.col("failure").is_not_null() & pl.col("lr").is_in(well.implode()))["lr"].to_list()
