"""Feature sparsity of models: sorted single-feature accuracies, and two indices of concentration."""

import polars as pl

RUN = ["stage", "plr", "flr", "count", "seed", "run"]
CONDITION = ["stage", "plr", "flr", "count"]


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
        features.filter(accuracy.is_finite())
        .group_by(RUN)
        .agg(
            accuracy.max().alias("top_accuracy"),
            pl.when(pl.len() > 1).then(rest).alias("rest_accuracy"),
            gini(excess).alias("gini"),
            top_share(excess).alias("top_share"),
        )
        .group_by(CONDITION)
        .agg(
            pl.len().cast(pl.Int64).alias("seeds"),
            pl.col("top_accuracy", "rest_accuracy", "gini", "top_share").mean(),
        )
        .sort(CONDITION, nulls_last=False)
    )


def gini(excess: pl.Expr) -> pl.Expr:
    """Gini index of shares, here of the features' excess accuracies over chance.

    Half the mean absolute difference between two values, over their mean, in one pass over the sorted values:
    Σ (2i − n − 1)·x_i / (n·Σ x_i). It is 0 if all are equal, ``1 − 1/n`` if one of n has everything; if all are zero,
    it is 0. Chance-level accuracies are noise, whose positive part is unequal too: read the index together with the top
    accuracy.

    Args:
        excess: Excess over chance, one per feature, not negative.
    """
    count = excess.len().cast(pl.Int64)
    weights = 2 * pl.int_range(1, count + 1) - count - 1
    index = (weights * excess.sort()).sum() / (count * excess.sum())
    return pl.when(excess.sum() > 0).then(index).otherwise(0.0)


def top_share(excess: pl.Expr) -> pl.Expr:
    """The top feature's share of the total excess over chance, from ``1/n`` to 1; 0 if all are zero.

    Args:
        excess: Excess over chance, one per feature, not negative.
    """
    return pl.when(excess.sum() > 0).then(excess.max() / excess.sum()).otherwise(0.0)
