"""What a search's chart of eliminations shows, as frames: how each LR did as its training went on."""

from collections.abc import Sequence

import polars as pl

from lratlas.report.advice_data import annealed_data, curves_data, window, within
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
    longest: int = data["steps"].max()  # pyright: ignore[reportAssignmentType] - Polars cannot know the type
    end = pl.col("steps").max().over("weights", "lr")
    fates = (
        pl.when(pl.col("lr").is_in(_failed_later(advice)))
        .then(pl.lit("failed after ") + pl.col("last_part"))
        .when(end == longest)
        .then(pl.lit("trained the longest"))
        .otherwise(pl.lit("given up after ") + pl.col("last_part"))
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
    """Places for the names of the LRs that went on, beside the ends of their lines and apart from each other.

    Returns:
        One row per line that ends within the scale: ``weights``, ``lr``, ``share``, ``drawn`` (the height),
        ``name``.
    """
    shown, courses, branches = window(advice), courses_data(advice), branches_data(advice).filter("end")
    ends = courses.filter(pl.col("is_last") & pl.col("went_on") & ~pl.col("outside")).select(
        "weights", "lr", "share", "drawn"
    )
    if branches.height:
        # Beyond the branch, which would run through them.
        beyond = pl.when(pl.col("share") == pl.col("share").max()).then(branches["share"].max()).otherwise("share")
        ends = ends.with_columns(share=beyond).update(branches.select(ends.columns), on=["weights", "lr"])
    gap = _NAME * (shown.high - shown.low)
    groups = ends.sort("drawn").partition_by("weights", "share", maintain_order=True)
    placed = [group.with_columns(drawn=pl.Series(spread(group["drawn"].to_list(), gap=gap))) for group in groups]
    return pl.concat([ends.clear(), *placed]).with_columns(name=lr_column("lr"))


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
    """The annealed branches, each as a line from the quality that it left to its own.

    Returns:
        Two rows per branch: ``weights`` (those whose quality it left), ``lr``, ``steps``, ``share``, ``metric``,
        ``drawn``, ``end`` (whether it is the branch's own).
    """
    courses = courses_data(advice)
    tips = annealed_data(advice).select("lr", "steps", "metric", share=pl.col("steps") / advice.steps)
    tips = tips.with_columns(drawn=within(window(advice)))
    left = courses.filter(pl.col("lr").is_in(tips["lr"].implode()) & pl.col("is_last")).with_columns(end=False)
    own = tips.join(left.select("weights", "lr"), on="lr").with_columns(end=True)
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
