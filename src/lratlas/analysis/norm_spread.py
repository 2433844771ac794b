"""How widely the norms of a model's filters are spread: before training, after pre-training, after fine-tuning."""

import polars as pl

from lratlas.tables import Tables, finite, table

REGIMES = ("1", "2A", "2B", "2", "3", "undecided")
STATES = ("before training", "after pre-training", "after fine-tuning")
ALL = "all"
_STATE_OF = {"initial": STATES[0], "pretrain": STATES[1], "finetune": STATES[2]}
# The range given as the spread leaves out the outermost filters, which are few and far.
LOW, HIGH = 0.05, 0.95


def pooled_norms(tables: Tables) -> pl.DataFrame:
    """Logs of the filters' norms over the total norm, all PLRs and seeds of a regime together (Fig. 13 of the paper).

    Args:
        tables: A study's tables; ``norms``, ``runs``, and ``regimes`` (may be empty: then all PLRs are one regime,
            ``all``).

    Returns:
        One row per filter and model, in order of regime and state: ``regime``, ``state``, ``flr`` (the lowest; null
        before fine-tuning), ``log_norm`` (decades). The initial models stand in every regime. Filters of norm zero
        have no logarithm and no row, nor have runs that diverged.
    """
    norms = finite(table(tables, "norms"), table(tables, "runs"))
    shown = norms.filter(
        pl.col("stage").is_in(["initial", "pretrain"])
        | (
            (pl.col("stage") == "finetune")
            & (pl.col("flr") == pl.col("flr").filter(pl.col("stage") == "finetune").min())
        ),
        pl.col("norm").is_finite() & (pl.col("norm") > 0),
    )
    trained = shown.filter(pl.col("stage") != "initial").join(_regime_of(tables, norms), on="plr")
    initial = shown.filter(stage="initial").join(trained.select("regime").unique(), how="cross")
    return (
        pl.concat([initial, trained.select(initial.columns)])
        .select(
            pl.col("regime").cast(pl.Enum([*REGIMES, ALL])),
            pl.col("stage").replace_strict(_STATE_OF, return_dtype=pl.Enum(STATES)).alias("state"),
            "flr",
            pl.col("norm").log10().alias("log_norm"),
        )
        .sort("regime", "state", maintain_order=True)
    )


def norm_spread(pooled: pl.DataFrame) -> pl.DataFrame:
    """The range that holds the middle nine tenths of the filters.

    Args:
        pooled: Filters as `pooled_norms` gives them.

    Returns:
        One row per ``regime`` and ``state``, in their order: ``flr``, ``spread`` (5 % to 95 % quantile, decades),
        ``filters``.
    """
    norm = pl.col("log_norm")
    return pooled.group_by("regime", "state", "flr", maintain_order=True).agg(
        spread=norm.quantile(HIGH, "linear") - norm.quantile(LOW, "linear"), filters=pl.len().cast(pl.Int64)
    )


def _regime_of(tables: Tables, norms: pl.DataFrame) -> pl.DataFrame:
    regimes = table(tables, "regimes").select("plr", "regime")
    if not regimes.is_empty():
        return regimes
    return norms.select("plr", regime=pl.lit(ALL)).drop_nulls().unique()
