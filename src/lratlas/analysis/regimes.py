"""The regime of each pre-training LR, with its evidence."""

import numpy as np
import polars as pl

from lratlas.analysis.evidence import run_evidence
from lratlas.analysis.labels import SLOW, UNMOVED, decide, votes
from lratlas.tables import SCHEMAS, Tables, completed, direct, empty
from lratlas.thresholds import DEFAULTS, Thresholds

ALL_TOO_SMALL = "No learning rate moved the loss: all are too small. Test larger ones."


def regimes(tables: Tables, *, chance_loss: float, thresholds: Thresholds = DEFAULTS) -> pl.DataFrame:
    """Decide the regime of every PLR and give the evidence.

    * ``3``, divergence: most seeds are not finite, or the training accuracy over the last quarter of the
      steps is not above that of the same predictions under shuffled labels: by a one-sided one-sample t test
      across seeds, or by a margin in every seed (the only rule for one seed). Losses decide where there are
      no accuracies.
    * ``1``, convergence: in most seeds every training sample is fitted at the end, or the loss is near zero,
      and the loss still falls or is at rest there; also a loss still falling below a PLR of regime 1.
    * ``2``, chaotic equilibrium: a stationary loss over the last half. Going up from the convergence
      threshold, ``2A`` as long as the solutions fine-tuned with the lowest and the highest FLR and the weight
      average are alike in test accuracy and linearly connected, ``2B`` from there on; plain ``2`` where that
      cannot be told.
    * ``undecided``, for a reason: not ``1``, and the test loss has not moved from its start, nor has that of
      any smaller PLR (too small; this comes first); still falling; at rest only next to a larger PLR that is at a
      lower loss and still falls; at rest, where there are no accuracies and losses below zero; or a trace that is
      too short.

    The definitions follow Section 3 of *Where Do Large Learning Rates Lead Us?* (2024).

    Args:
        tables: A study's tables; ``runs``, ``traces`` and ``pairs`` (may be missing) are read. Pre-training
            runs decide; the solutions made from them tell 2A from 2B and give ``flr_spread``.
        chance_loss: Loss of the best constant prediction.
        thresholds: The numbers that decide.

    Returns:
        One row per PLR, ascending, with the schema of ``regimes``.

    Raises:
        SpecError: If ``chance_loss`` is not a positive number.
        StudyError: If a PLR has two pre-training runs of one seed, or a finite run has no training trace.
    """
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
        _pooled(evidence)
        .join(decided, on="plr", how="left")
        .join(_flr_spread(tables["runs"]), on="plr", how="left")
        .sort("plr")
        .select(pl.col(name).cast(kind) for name, kind in SCHEMAS["regimes"].items())
    )


def all_too_small(regimes: pl.DataFrame) -> bool:
    """Whether there are PLRs and the loss has moved at none of them."""
    return len(regimes) > 0 and completed(regimes, "regimes").select(pl.col("reason").eq_missing(UNMOVED).all()).item()


def undecided(regimes: pl.DataFrame) -> pl.DataFrame:
    """The undecided PLRs that may be of any regime: those that are too small are left out."""
    whole = completed(regimes, "regimes")
    return whole.filter(
        pl.col("regime") == "undecided", ~pl.col("reason").is_in([UNMOVED, SLOW]).fill_null(value=False)
    )


def _pooled(evidence: pl.DataFrame) -> pl.DataFrame:
    """Means and shares over seeds; what is null, as for runs that are not finite, does not enter."""
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
