"""The regime of each PLR, and the evidence for it."""

import math
from functools import cache
from itertools import accumulate

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lratlas.analysis.labels import SLOW, UNMOVED, decide, votes
from lratlas.errors import SpecError, StudyError
from lratlas.tables import SCHEMAS, Tables, add_missing_columns, direct, empty, has_accuracy
from lratlas.thresholds import DEFAULTS, Thresholds

FEWEST_BLOCKS = 5  # with four, even a loss that falls throughout has p = 1/24
_EXACT_BLOCKS = 33  # the largest count for which SciPy's test is exact


def falling_p(losses: NDArray[np.float64]) -> float | None:
    """One-sided p value of the Mann-Kendall test for a fall.

    Ranks make the test robust to spikes and to the loss's scale. It is exact for independent values, so pass means
    over blocks longer than the correlation time.

    Args:
        losses: Means over successive blocks of steps, shape (blocks,).

    Returns:
        The p value; 1 for a constant loss, None for fewer than five blocks.
    """
    return falling_ps(losses[None])[0]


def falling_ps(losses: NDArray[np.float64]) -> list[float | None]:
    """The p value of `falling_p` for each of several losses, shape (losses, blocks)."""
    count = losses.shape[1]
    if count < FEWEST_BLOCKS:
        return [None] * len(losses)
    first, second = (losses[:, places] for places in np.triu_indices(count, 1))
    tied = (first == second).any(1) | (count > _EXACT_BLOCKS)
    rising = (first < second).sum(1).tolist()
    return [
        _tied_p(each) if ties else _share_of_orders(count)[up]
        for each, ties, up in zip(losses, tied, rising, strict=True)
    ]


def _tied_p(losses: NDArray[np.float64]) -> float:
    if np.ptp(losses) == 0:
        return 1.0
    from scipy import stats  # takes a second to import, and most studies do not need it

    result = stats.kendalltau(np.arange(len(losses)), losses, alternative="less")
    return float(np.asarray(result)[1])


@cache
def _share_of_orders(count: int) -> tuple[float, ...]:
    """The share of the orders of ``count`` values in which at most 0, 1, 2, … pairs rise."""
    orders = [1]  # by the number of rising pairs
    for size in range(2, count + 1):  # the last value is above 0 to size - 1 of the others
        orders = [sum(orders[max(0, pairs - size + 1) : pairs + 1]) for pairs in range(len(orders) + size - 1)]
    return tuple(total / math.factorial(count) for total in accumulate(orders))


BLOCKS = 10  # even, so that the third and the last quarter of the steps are five blocks each


def run_evidence(tables: Tables, *, chance_loss: float, thresholds: Thresholds) -> pl.DataFrame:
    """Collect the evidence of every pre-training run.

    Means over the last quarter weight each trace row by the steps it covers and use the rows entirely
    inside, or at least the last row. The trend is a one-sided Mann-Kendall test on the loss of the last half
    of the steps, averaged in ten blocks: ranks are robust to spikes and to the loss's scale, and blocks
    remove the correlation between neighbouring rows.

    Args:
        tables: A study's tables; ``runs`` and ``traces`` are read.
        chance_loss: Loss of the best constant prediction.
        thresholds: The numbers that decide.

    Returns:
        One row per PLR and seed, sorted: plr, seed, diverged, fitted, test_accuracy; train_accuracy,
        chance_accuracy and train_loss over the last quarter; excess (accuracy over chance, or the removed share of
        the chance loss if there are no accuracies); unmoved; trend_p (null if the trace is too short);
        falling; converged; unbounded (one value for all rows: there are no accuracies, and losses are below
        zero, so no loss indicates the minimum). Measurements of diverged runs are null.

    Raises:
        SpecError: If ``chance_loss`` is not finite, or not positive and there are no accuracies.
        StudyError: If a PLR has two pre-training runs of one seed, or a finite run has no training trace.
    """
    runs = tables["runs"].filter(pl.col("stage") == "pretrain").sort("plr", "seed")
    scored = tables["traces"]["train_accuracy"].count() > 0 or has_accuracy(runs)
    if not math.isfinite(chance_loss) or (chance_loss <= 0 and not scored):
        raise SpecError(f"chance_loss is {chance_loss}; it must be a positive number")
    # Without a positive level no loss is near zero relative to it; only accuracies decide.
    small = thresholds.small_loss * chance_loss if chance_loss > 0 else -math.inf
    unbounded = not scored and bool((tables["traces"]["train_loss"] < -small).any())
    _check_unique(runs)
    rows = _trace_spans(tables["traces"], runs)
    frame = (
        runs.select(
            "run",
            "plr",
            "seed",
            pl.col("diverged").fill_null(value=False),
            (pl.col("train_accuracy") == 1).fill_null(value=False).alias("fitted"),
            (pl.col("train_loss") < small).fill_null(value=False).alias("small_end"),
            pl.col("test_accuracy").fill_nan(None),
        )
        .join(_last_quarter(rows), on="run", how="left", maintain_order="left")
        .join(_trends(rows), on="run", how="left", maintain_order="left")
        .join(_has_not_moved(tables["traces"], runs, thresholds.unmoved), on="run", how="left", maintain_order="left")
    )
    measured = ["test_accuracy", "train_accuracy", "chance_accuracy", "train_loss", "trend_p", "fall"]
    frame = frame.with_columns(
        pl.when(~pl.col("diverged")).then(pl.col(name)).alias(name) for name in measured
    ).with_columns(
        pl.coalesce(pl.col("train_accuracy") - pl.col("chance_accuracy"), _removed_share(chance_loss, small)).alias(
            "excess"
        ),
        pl.when(pl.col("trend_p").is_not_null())
        .then((pl.col("trend_p") < thresholds.trend_level) & (pl.col("fall") > thresholds.fall))
        .alias("falling"),
        (
            (pl.col("train_loss") < small).fill_null(value=False)
            | (pl.col("train_accuracy") >= thresholds.fitted_accuracy).fill_null(value=False)
        ).alias("at_rest"),
    )
    _check_traced(frame)
    settled = pl.col("falling").fill_null(value=False) | pl.col("at_rest")
    ended = (pl.col("fitted") | pl.col("small_end")) & (not unbounded)
    return frame.with_columns(
        (~pl.col("diverged") & ended & settled).alias("converged"), pl.lit(unbounded).alias("unbounded")
    ).drop("run", "small_end", "at_rest", "fall")


def _removed_share(chance_loss: float, small: float) -> pl.Expr:
    """The share of the chance loss that training has removed: zero if the loss has not moved.

    A loss below ``small`` counts unchanged: a model that starts fitted has nothing to move.
    """
    share = 1 - pl.col("train_loss") / chance_loss
    # The initial loss of another seed may be a few percent higher.
    still = pl.col("unmoved").fill_null(value=False) & (pl.col("train_loss") >= small)
    return pl.when(still).then(pl.min_horizontal(share, 0.0)).otherwise(share)


def _has_not_moved(traces: pl.DataFrame, runs: pl.DataFrame, share: float) -> pl.DataFrame:
    """Per run, whether its test loss stays near the start throughout the last half, and its gradient is not zero.

    In the first half, the statistics of batch norm may still be adapting from their initial values.
    """
    start = pl.col("start_loss")
    near = ((pl.col("test_loss") - start).abs() <= share * start.abs()).fill_null(value=False)
    dead = (pl.col("gradient_norm").sort_by("step").last() == 0).fill_null(value=False)
    return (
        add_missing_columns(traces, "traces")
        .join(add_missing_columns(runs, "runs").select("run", "steps", "start_loss"), on="run")
        .filter(pl.col("step") > pl.col("steps") / 2)
        .group_by("run")
        .agg((near.all() & ~dead).alias("unmoved"))
    )


def _check_unique(runs: pl.DataFrame) -> None:
    twice = runs.filter(runs.select("plr", "seed").is_duplicated())
    if twice.height:
        plr, seed = twice.select("plr", "seed").row(0)
        raise StudyError(f"PLR {plr:g} has more than one pre-training run of seed {seed}; only one is allowed")


def _check_traced(frame: pl.DataFrame) -> None:
    untraced = frame.filter(~pl.col("diverged") & pl.col("excess").is_null())
    if untraced.height:
        plr, seed = untraced.select("plr", "seed").row(0)
        raise StudyError(
            f"the pre-training run of PLR {plr:g}, seed {seed}, has no trace of its training accuracy or "
            "loss; every finite run needs one"
        )


def _trace_spans(traces: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """The trace rows of ``runs`` with the first step (``start``) and the number of steps that each covers."""
    clean = [
        pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name)
        for name in ("train_loss", "train_accuracy", "chance_accuracy")
    ]
    return (
        traces.select("run", "step", *clean)
        .join(runs.select("run", "steps"), on="run", how="inner")
        .sort("run", "step")
        .with_columns(pl.col("step").shift(1).over("run").fill_null(0).alias("start"))
        .with_columns((pl.col("step") - pl.col("start")).alias("covered"))
        .filter(pl.col("covered") > 0)  # a row at step 0 covers nothing
    )


def _weighted_mean(name: str) -> pl.Expr:
    """Mean of a column over the steps covered; null if nothing was measured."""
    covered = pl.col("covered").filter(pl.col(name).is_not_null())
    return ((pl.col(name) * pl.col("covered")).sum() / covered.sum()).fill_nan(None).alias(name)


def _last_quarter(rows: pl.DataFrame) -> pl.DataFrame:
    last = pl.col("step") == pl.col("step").max().over("run")
    means = [_weighted_mean(name) for name in ("train_accuracy", "chance_accuracy", "train_loss")]
    return rows.filter((pl.col("start") >= 0.75 * pl.col("steps")) | last).group_by("run").agg(means)


def _trends(rows: pl.DataFrame) -> pl.DataFrame:
    """Per run: ``trend_p`` of a falling loss; relative ``fall`` between the quarters of the last half."""
    half = 0.5 * pl.col("steps")
    middle = (pl.col("start") + pl.col("step")) / 2
    lists = (
        rows.filter((pl.col("start") >= half) & pl.col("train_loss").is_not_null())
        .with_columns(((middle - half) / half * BLOCKS).floor().clip(0, BLOCKS - 1).alias("block"))
        .group_by("run", "block")
        .agg(_weighted_mean("train_loss"))
        .sort("run", "block")
        .group_by("run", maintain_order=True)
        .agg(
            pl.col("train_loss").filter(pl.col("block") < BLOCKS // 2).mean().alias("third_quarter"),
            pl.col("train_loss").filter(pl.col("block") >= BLOCKS // 2).mean().alias("last_quarter"),
            "train_loss",
        )
    )
    lists = pl.concat(
        [
            part.with_columns(pl.Series("trend_p", falling_ps(np.array(part["train_loss"].to_list())), pl.Float64))
            for _, part in lists.group_by(pl.col("train_loss").list.len(), maintain_order=True)
        ]
        or [lists.with_columns(pl.lit(None, pl.Float64).alias("trend_p"))]
    )
    return lists.select(
        "run",
        "trend_p",
        # A loss may be negative: the fall is relative to its absolute value.
        ((pl.col("third_quarter") - pl.col("last_quarter")) / pl.col("third_quarter").abs())
        .fill_nan(None)
        .alias("fall"),
    )


ALL_TOO_SMALL = "No learning rate changed the loss: all are too small. Test larger ones."


def regimes(
    tables: Tables,
    *,
    chance_loss: float,
    thresholds: Thresholds = DEFAULTS,
    evidence: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Decide the regime of every PLR and give the evidence.

    * ``3``, divergence: most seeds are not finite, or the training accuracy over the last quarter of the
      steps is not above that of the same predictions under shuffled labels: by a one-sided one-sample t test
      across seeds, or by a margin in every seed (the only rule for one seed). Losses decide if there are
      no accuracies.
    * ``1``, convergence: in most seeds every training sample is fitted at the end, or the loss is near zero,
      and the loss still falls or is at rest there; also a loss still falling below a PLR of regime 1.
    * ``2``, chaotic equilibrium: a stationary loss over the last half. Going up from the convergence
      threshold, ``2A`` as long as the solutions fine-tuned with the lowest and the highest FLR and the weight
      average have similar test accuracies and are linearly connected, ``2B`` from there on; plain ``2`` if that
      is unknown.
    * ``undecided``, with a reason: not ``1``, and the test loss has not moved from its start at this or any
      smaller PLR (too small; checked first); still falling; at rest, but a larger PLR is at a lower loss and still
      falls; at rest, without accuracies and with losses below zero; or a trace that is too short.

    The definitions follow Section 3 of *Where Do Large Learning Rates Lead Us?* (2024).

    Args:
        tables: A study's tables; ``runs``, ``traces`` and ``pairs`` (may be missing) are read. Pre-training
            runs decide; the solutions made from them separate 2A from 2B and give ``flr_spread``.
        chance_loss: Loss of the best constant prediction.
        thresholds: The numbers that decide.
        evidence: The result of `run_evidence` for them; None to compute it here.

    Returns:
        One row per PLR, ascending, with the schema of ``regimes``.

    Raises:
        SpecError: If ``chance_loss`` is not a positive number.
        StudyError: If a PLR has two pre-training runs of one seed, or a finite run has no training trace.
    """
    if evidence is None:
        evidence = run_evidence(tables, chance_loss=chance_loss, thresholds=thresholds)
    if evidence.is_empty():
        return empty("regimes")
    ballot = votes(evidence, tables, thresholds=thresholds)
    everyone = np.ones((1, len(ballot.seeds)))
    decision = decide(ballot, everyone, thresholds=thresholds)
    decided = pl.DataFrame(
        {
            "plr": ballot.plrs,
            "regime": decision.labels[0].tolist(),
            "reason": [reason or None for reason in decision.reasons[0].tolist()],
            "above_chance_p": decision.above_chance_p[0],
            "barrier": decision.barrier[0],
            "spread": decision.spread[0],
        },
        schema_overrides={"reason": pl.String},
    ).with_columns(pl.col("above_chance_p", "barrier", "spread").fill_nan(None))
    return (
        _pool_seeds(evidence)
        .join(decided, on="plr", how="left")
        .join(_flr_spread(tables["runs"]), on="plr", how="left")
        .sort("plr")
        .select(pl.col(name).cast(kind) for name, kind in SCHEMAS["regimes"].items())
    )


def all_too_small(regimes: pl.DataFrame) -> bool:
    """Whether there are PLRs, and the loss has not moved at any of them."""
    return (
        len(regimes) > 0
        and add_missing_columns(regimes, "regimes").select(pl.col("reason").eq_missing(UNMOVED).all()).item()
    )


def undecided_plrs(regimes: pl.DataFrame) -> pl.DataFrame:
    """The undecided PLRs that may be in any regime, without those that are too small."""
    whole = add_missing_columns(regimes, "regimes")
    return whole.filter(
        pl.col("regime") == "undecided", ~pl.col("reason").is_in([UNMOVED, SLOW]).fill_null(value=False)
    )


def _pool_seeds(evidence: pl.DataFrame) -> pl.DataFrame:
    """Means and shares over seeds; null values, as for runs that are not finite, do not count."""
    accuracies = ("train_accuracy", "chance_accuracy", "test_accuracy")
    means = ("diverged", "fitted", "falling", "train_loss", *accuracies)
    return evidence.group_by("plr").agg(
        pl.len().alias("seeds"), *(pl.col(name).mean() for name in means), pl.col("trend_p").median()
    )


def _flr_spread(runs: pl.DataFrame) -> pl.DataFrame:
    """Per PLR, the range over FLRs of the mean test accuracy after fine-tuning; null for one FLR."""
    spread = pl.col("test_accuracy").max() - pl.col("test_accuracy").min()
    return (
        direct(runs)
        .filter(pl.col("stage") == "finetune")
        .group_by("plr", "flr")
        .agg(pl.col("test_accuracy").fill_nan(None).mean())
        .drop_nulls("test_accuracy")
        .group_by("plr")
        .agg(pl.when(pl.len() > 1).then(spread).alias("flr_spread"))
    )
