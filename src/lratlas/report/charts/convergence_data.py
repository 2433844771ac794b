"""What the chart of the convergence threshold shows: epochs to convergence, their law, and the accuracy reached."""

import math

import numpy as np
import polars as pl

from lratlas.analysis.power_law import rising
from lratlas.report.frames import need, repeat_by_seed
from lratlas.tables import Tables, table

_LAW_POINTS = 80
# The curve ends this share of the way from the last PLR to the threshold: it has no end of its own.
_LAW_END = 0.6


def convergence_data(tables: Tables) -> pl.DataFrame:
    """Epochs to convergence and the test accuracy reached, against PLR (Fig. 11 of the paper).

    Args:
        tables: The study's tables; of them only ``convergence``.

    Returns:
        One row per PLR, for all seeds together and then for each: ``plr``, ``seed`` (null: over seeds), ``epochs``
        (over seeds their median, those never converged counting as infinite; null where it is infinite, or the seed
        never converged), ``mean``, ``low`` and ``high`` (test accuracy of those converged, mean ∓ standard deviation
        over seeds; equal to the mean for one seed), ``seeds``, ``converged`` (seeds).

    Raises:
        StudyError: The table ``convergence`` is empty.
    """
    epochs = pl.col("epochs").cast(pl.Float64).fill_null(math.inf).median()
    accuracy = pl.col("test_accuracy").filter(pl.col("epochs").is_not_null())
    spread = accuracy.std().fill_null(0.0)
    return (
        repeat_by_seed(need(tables, "convergence", "convergence"))
        .group_by("plr", "seed")
        .agg(
            epochs=pl.when(epochs.is_finite()).then(epochs),
            mean=accuracy.mean(),
            low=accuracy.mean() - spread,
            high=accuracy.mean() + spread,
            seeds=pl.col("one").n_unique().cast(pl.Int64),
            converged=pl.col("epochs").count().cast(pl.Int64),
        )
        .sort("seed", "plr")
    )


def law_data(tables: Tables) -> pl.DataFrame:
    """The fitted power law as points of a curve.

    Args:
        tables: The study's tables; ``power_law`` (may be empty) and ``convergence``.

    Returns:
        One row per point in order: ``plr``, ``epochs``, from the first PLR fitted to a little beyond the last, and
        ``threshold``; no rows where there is no law.
    """
    law = {row["parameter"]: row["value"] for row in table(tables, "power_law").iter_rows(named=True)}
    part = rising(table(tables, "convergence"))
    if not law or part.is_empty():
        return pl.DataFrame(schema=dict.fromkeys(("plr", "epochs", "threshold"), pl.Float64))
    ends = (law["threshold"] - part["plr"][0], (1 - _LAW_END) * (law["threshold"] - part["plr"][-1]))
    distances = np.geomspace(*ends, _LAW_POINTS)
    return pl.DataFrame(
        {"plr": law["threshold"] - distances, "epochs": law["scale"] * distances ** -law["exponent"]}
    ).with_columns(threshold=pl.lit(law["threshold"]))
