"""Two stages against one: PLR high → PLR low → FLR beside the direct ways from either PLR."""

import polars as pl

from lratlas.tables import direct

WAYS = ("high", "low", "both")


def two_stages(runs: pl.DataFrame) -> pl.DataFrame:
    """Test accuracies after fine-tuning with and without a second PLR (Fig. 12 of the paper).

    Args:
        runs: A study's ``runs`` table.

    Returns:
        For each pair of PLRs and each FLR with a run of two stages, one row per way and seed, sorted: ``plr``,
        ``plr2``, ``flr``, ``way`` (``high``: plr → flr; ``low``: plr2 → flr; ``both``: plr → plr2 → flr), ``seed``,
        ``test_accuracy``. Ways without a run have no row, nor have runs without a test accuracy.
    """
    tuned = runs.filter(stage="finetune").drop_nulls("test_accuracy")
    both, one = tuned.filter(pl.col("plr2").is_not_null()), direct(tuned).drop("plr2")
    compared = both.select("plr", "plr2", "flr").unique()
    ways = {
        "high": compared.join(one, on=["plr", "flr"]),
        "low": compared.join(one.rename({"plr": "plr2"}), on=["plr2", "flr"]),
        "both": both,
    }
    columns = ("plr", "plr2", "flr", "way", "seed", "test_accuracy")
    return pl.concat(
        frame.with_columns(way=pl.lit(way, pl.Enum(WAYS))).select(columns) for way, frame in ways.items()
    ).sort("plr", "plr2", "flr", "way", "seed")


def two_stage_means(runs: pl.DataFrame) -> pl.DataFrame:
    """The same averaged over seeds.

    Args:
        runs: A study's ``runs`` table.

    Returns:
        One row per ``plr``, ``plr2``, ``flr`` and ``way``, sorted: ``mean``, ``deviation`` (0 for one seed), ``seeds``.
    """
    accuracy = pl.col("test_accuracy")
    return (
        two_stages(runs)
        .group_by("plr", "plr2", "flr", "way", maintain_order=True)
        .agg(mean=accuracy.mean(), deviation=accuracy.std().fill_null(0.0), seeds=pl.len().cast(pl.Int64))
    )
