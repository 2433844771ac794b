"""The paper's claims as statements about the task at hand, each with an effect, an interval and a verdict."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from lratlas.analysis.claims.evidence import Evidence, Judgement, NotMeasured, Unanswered
from lratlas.analysis.claims.learned import middle_band, sparse_features
from lratlas.analysis.claims.minima import connected_basin, high_flr_leaves, sharpness_unrelated
from lratlas.analysis.claims.quality import best_averaged, best_fine_tuned, flr_matters, two_stages_recover
from lratlas.analysis.claims.regimes import epochs_diverge, three_regimes
from lratlas.analysis.regimes import ALL_TOO_SMALL, all_too_small
from lratlas.tables import SCHEMAS, Tables, has_accuracy
from lratlas.thresholds import DEFAULTS, Thresholds


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the paper.

    Attributes:
        title: The claim in words.
        judge: The function that judges it.
        by_loss: Whether losses can judge it if a task has no accuracy.
    """

    title: str
    judge: Callable[[Evidence], Judgement]
    by_loss: bool = False


CLAIMS: Mapping[str, Claim] = {
    "three-regimes": Claim(title="Training has three regimes, in order", judge=three_regimes, by_loss=True),
    "best-fine-tuned": Claim(
        title="The best fine-tuned models start just above the convergence threshold",
        judge=best_fine_tuned,
        by_loss=True,
    ),
    "best-averaged": Claim(
        title="The best averaged models start just above the convergence threshold", judge=best_averaged, by_loss=True
    ),
    "flr-matters": Claim(
        title="The fine-tuning learning rate matters little just above the threshold, and more beyond it",
        judge=flr_matters,
    ),
    "connected-basin": Claim(
        title="Solutions from just above the threshold share one basin; those from larger learning rates do not",
        judge=connected_basin,
    ),
    "high-flr-leaves": Claim(
        title="A high fine-tuning learning rate leaves the basin of a start far below the threshold",
        judge=high_flr_leaves,
    ),
    "sparse-features": Claim(
        title="Networks learn a few features just above the threshold, and a little of every feature below it",
        judge=sparse_features,
    ),
    "middle-band": Claim(
        title="Networks learn the middle frequencies of images just above the threshold", judge=middle_band
    ),
    "epochs-diverge": Claim(title="Epochs to convergence diverge at the threshold", judge=epochs_diverge),
    "two-stages": Claim(
        title="A second learning rate just above the threshold repairs a first one that was too large",
        judge=two_stages_recover,
    ),
    "sharpness": Claim(title="Sharpness does not predict the test error", judge=sharpness_unrelated),
}


def claims(
    tables: Tables,
    *,
    chance_loss: float,
    thresholds: Thresholds = DEFAULTS,
    evidence: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Judge each claim of the paper on a study.

    "Just above the convergence threshold" means the PLRs of subregime 2A, or the lowest PLR of regime 2 above the
    threshold if there is no 2A. Diverged models and seeds with missing models do not count. An effect is a mean over
    seeds, or a gain of the best over the best, with a 95% interval by Student's t. The whole interval has to support or
    contradict a claim; with fewer than three seeds or PLRs too far apart the claim is inconclusive. It is not measured
    if the study lacks its data; the statement then says what to add.

    Args:
        tables: A study's tables with ``runs``, ``traces``, ``regimes`` and ``boundaries``, and any others.
        chance_loss: Loss of the best constant prediction.
        thresholds: The numbers that decided the regimes.
        evidence: The result of `run_evidence` for the tables; None to compute it here.

    Returns:
        One row per entry of ``CLAIMS``, in that order, with the schema of ``claims``.
    """
    study = Evidence(tables=tables, thresholds=thresholds, chance_loss=chance_loss, runs=evidence)
    rows = [{"claim": name, **vars(_judge_claim(claim, study))} for name, claim in CLAIMS.items()]
    return pl.DataFrame(rows, schema_overrides=SCHEMAS["claims"]).select(SCHEMAS["claims"].names())


def _judge_claim(claim: Claim, evidence: Evidence) -> Judgement:
    try:
        _check(claim, evidence)
        return claim.judge(evidence)
    except Unanswered as lack:
        return Judgement(verdict=lack.verdict, statement=str(lack))


def _check(claim: Claim, evidence: Evidence) -> None:
    """Check that a study can answer a claim at all.

    Raises:
        Unanswered: The study cannot answer it.
    """
    if all_too_small(evidence.table("regimes")):
        raise Unanswered(ALL_TOO_SMALL)
    if not claim.by_loss and not has_accuracy(evidence.tables["runs"]):
        raise NotMeasured("The task has no accuracy.")
