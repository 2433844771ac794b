"""Rows of the tables prepared for charts: checked, sorted, per seed and over seeds, and with readable names."""

import math
from itertools import pairwise

import polars as pl

from lratlas.errors import StudyError
from lratlas.tables import STAGES, Tables, table
from lratlas.text import format_lr


def lr_text(lr: float) -> str:
    """A learning rate in short scientific notation, with at most three significant digits.

    >>> lr_text(0.0001), lr_text(0.0075), lr_text(10**-4.5)
    ('1e-4', '7.5e-3', '3.16e-5')
    """
    return format_lr(lr, digits=3)


def lr_column(name: str) -> pl.Expr:
    """A column of learning rates as text, formatted by `lr_text`."""
    return pl.col(name).map_elements(lr_text, return_dtype=pl.String)


def need(tables: Tables, name: str, chart: str, column: str | None = None) -> pl.DataFrame:
    """A table that a chart requires.

    Args:
        tables: The study's tables.
        name: The name of the table.
        chart: The name of the chart.
        column: A column that must have a value in some row.

    Raises:
        StudyError: The table is empty, or has no value in that column.
    """
    found = table(tables, name)
    if found.is_empty():
        raise StudyError(f"The {chart} chart needs rows in table '{name}', which is empty.")
    if column and not found[column].is_finite().any():
        said = column.replace("_", " ")
        raise StudyError(f"The {chart} chart needs a {said} in table '{name}', but no row has one.")
    return found


def stage_order() -> pl.Expr:
    """The rank of each row's stage in a legend: pre-training, fine-tuning, averaging."""
    return pl.col("stage").replace_strict(STAGES, range(3), return_dtype=pl.Int64)


def repeat_by_seed(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows twice: for all seeds together, and for each single seed.

    Args:
        rows: Any rows with a column ``seed``.

    Returns:
        The rows with ``seed`` null, then unchanged; ``one`` is the seed of a row in both copies. Grouped by ``seed``,
        they give a chart's data over seeds and for each seed.
    """
    return pl.concat(
        [rows.with_columns(seed=pl.lit(None, rows.schema["seed"]), one="seed"), rows.with_columns(one="seed")]
    )


def over_seeds(data: pl.DataFrame) -> pl.DataFrame:
    """The rows of a chart's data for all seeds together, shown until the reader chooses a seed."""
    return data.filter(pl.col("seed").is_null())


def name_models(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with the name of each row's model.

    Args:
        rows: Rows with the columns ``stage`` (pretrain, finetune or average), ``flr`` and ``count``.

    Returns:
        The rows in their order with a column ``model``: ``pre-trained``, ``fine-tuned, FLR 1e-4``,
        ``averaged, SWA-5``.
    """
    keys = ["stage", "flr", "count"]
    name = (
        pl.when(pl.col("stage") == "pretrain")
        .then(pl.lit("pre-trained"))
        .when(pl.col("stage") == "finetune")
        .then(pl.lit("fine-tuned, FLR ") + lr_column("flr"))
        .otherwise(pl.lit("averaged, SWA-") + pl.col("count").cast(pl.String))
    )
    # Each model is named once: there are few models and many rows.
    names = rows.select(keys).unique().with_columns(model=name)
    return rows.join(names, on=keys, how="left", nulls_equal=True, maintain_order="left")


def seeds_in_words(seeds: int, *, mean: bool = False) -> str:
    """The number of seeds of a chart, in words.

    Example:
        >>> seeds_in_words(1), seeds_in_words(2), seeds_in_words(1, mean=True), seeds_in_words(50, mean=True)
        ('one seed', '2 seeds', 'One seed', 'Mean over 50 seeds ± one standard deviation')

    Args:
        seeds: The number of seeds.
        mean: Whether to word it as the beginning of a caption, for a mean over seeds and its deviation.
    """
    if seeds == 1:
        return "One seed" if mean else "one seed"
    return f"Mean over {seeds} seeds ± one standard deviation" if mean else f"{seeds} seeds"


def regimes_in_words(bands: pl.DataFrame) -> str:
    """The meaning of the shading behind a chart, and the regimes that are out of order.

    Args:
        bands: Bands from `regime_bands`.

    Returns:
        One sentence, or two; empty without regimes.
    """
    if bands.is_empty():
        return ""
    words = "Shaded: the regime of each PLR."
    known = bands.filter(pl.col("regime") != "undecided")
    runs = known.filter(pl.col("regime").rle_id().is_first_distinct())["regime"].to_list()
    if len(runs) > len(set(runs)):
        again = [name for name in dict.fromkeys(runs) if runs.count(name) > 1]
        words += (
            f" The regimes are not in order here: {' and '.join(again)} appear{'s' * (len(again) == 1)} more than once."
        )
    return words


def regime_bands(tables: Tables) -> pl.DataFrame:
    """Intervals of PLR that share a regime, for shading.

    Neighbouring bands meet at the geometric mean of the two PLRs; the outer ones reach half a step further.

    Args:
        tables: The study's tables; only ``regimes`` is read, which may be empty.

    Returns:
        One row per band in order of PLR: ``regime``, ``low``, ``high``, ``middle`` (their geometric mean).
    """
    regimes = table(tables, "regimes").sort("plr")
    if regimes.is_empty():
        return pl.DataFrame(schema={"regime": pl.String} | dict.fromkeys(("low", "high", "middle"), pl.Float64))
    edges = _edges(regimes["plr"].to_list())
    return (
        regimes.select("regime")
        .with_columns(low=pl.Series(edges[:-1]), high=pl.Series(edges[1:]), band=pl.col("regime").rle_id())
        .group_by("band", maintain_order=True)
        .agg(pl.col("regime").first(), pl.col("low").min(), pl.col("high").max())
        .with_columns(middle=(pl.col("low") * pl.col("high")).sqrt())
        .drop("band")
    )


def _edges(plrs: list[float]) -> list[float]:
    """The n + 1 borders of n bands around sorted PLRs, on a log scale."""
    inner = [math.sqrt(a * b) for a, b in pairwise(plrs)]
    if not inner:
        return [plrs[0] / 1.2, plrs[0] * 1.2]
    return [plrs[0] ** 2 / inner[0], *inner, plrs[-1] ** 2 / inner[-1]]
