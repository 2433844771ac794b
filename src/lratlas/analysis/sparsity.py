"""Feature sparsity of models: sorted single-feature accuracies, and two indices of concentration."""

from collections.abc import Sequence

import polars as pl

RUN = ["stage", "plr", "flr", "count", "seed", "run"]
CONDITION = ["stage", "plr", "flr", "count"]


def gini(values: Sequence[float]) -> float:
    """Gini index of shares, here of the features' excess accuracies over chance.

    Half the mean absolute difference between two values, over their mean: 0 if all are equal, ``1 − 1/n`` if
    one of n has everything. A negative excess counts as zero; if all are zero, the index is 0.
    Chance-level accuracies are noise, whose positive part is unequal too: read the index together with the top
    accuracy.

    Args:
        values: Excess over chance, one per feature.

    Example:
        >>> gini([0.0, 0.0, 0.0, 0.25])
        0.75
    """
    return pl.select(_gini(_excess(values))).item()


def top_share(values: Sequence[float]) -> float:
    """The top feature's share of the total excess over chance, from ``1/n`` to 1.

    A negative excess counts as zero; the share is 0 if all are zero.

    Args:
        values: Excess over chance, one per feature.

    Example:
        >>> top_share([0.25, -0.25, 0.75])
        0.75
    """
    return pl.select(_top_share(_excess(values))).item()


def sparsity(features: pl.DataFrame, *, chance: float) -> pl.DataFrame:
    """Feature sparsity of every stage and LR, computed per run and averaged over seeds.

    Args:
        features: A study's ``features`` table.
        chance: Accuracy of guessing.

    Returns:
        One row per stage, plr, flr and count, sorted: ``seeds``; ``top_accuracy``, of each run's best
        feature; ``rest_accuracy``, the mean of its other features (null if there are none); ``gini`` and
        ``top_share`` of the excess over chance.
    """
    accuracy = pl.col("accuracy")
    excess = (accuracy - chance).clip(lower_bound=0)
    rest = (accuracy.sum() - accuracy.max()) / (pl.len() - 1)
    return (
        _measured_features(features)
        .group_by(RUN)
        .agg(
            accuracy.max().alias("top_accuracy"),
            pl.when(pl.len() > 1).then(rest).alias("rest_accuracy"),
            _gini(excess).alias("gini"),
            _top_share(excess).alias("top_share"),
        )
        .group_by(CONDITION)
        .agg(
            pl.len().cast(pl.Int64).alias("seeds"),
            pl.col("top_accuracy", "rest_accuracy", "gini", "top_share").mean(),
        )
        .sort(CONDITION, nulls_last=False)
    )


def _measured_features(features: pl.DataFrame) -> pl.DataFrame:
    return features.filter(pl.col("accuracy").is_finite())


def _excess(values: Sequence[float]) -> pl.Expr:
    return pl.lit(pl.Series(values, dtype=pl.Float64)).clip(lower_bound=0)


def _gini(excess: pl.Expr) -> pl.Expr:
    """Gini index in one pass over the sorted values: Σ (2i − n − 1)·x_i / (n·Σ x_i)."""
    count = excess.len().cast(pl.Int64)
    weights = 2 * pl.int_range(1, count + 1) - count - 1
    index = (weights * excess.sort()).sum() / (count * excess.sum())
    return pl.when(excess.sum() > 0).then(index).otherwise(0.0)


def _top_share(excess: pl.Expr) -> pl.Expr:
    return pl.when(excess.sum() > 0).then(excess.max() / excess.sum()).otherwise(0.0)
