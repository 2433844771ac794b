"""Claims about learned features: few just above the threshold, and the middle of the spectrum."""

import numpy as np
import polars as pl

from lratlas.analysis.claims.evidence import (
    NEGLIGIBLE,
    Evidence,
    Judgement,
    NotMeasured,
    describe_effect,
    exceeds,
    lr_range,
    mean_of,
    per_seed,
    what_would_tell,
)
from lratlas.analysis.scores import complete_seeds


def sparse_features(evidence: Evidence) -> Judgement:
    """Just above the threshold networks rely on few features, in regime 1 on a little of each (Fig. 5).

    The effect is the lead of a model's best feature over its other features, in single-feature accuracy, minus that
    lead in models from regime 1; means over PLRs, of models fine-tuned with the lowest FLR if these were measured.
    """
    features = _final(evidence.table("features"))
    if features.is_empty():
        raise NotMeasured("Needs a task with sets in which a single feature is informative.")
    accuracy = pl.col("accuracy")
    standing = accuracy.max() - (accuracy.sum() - accuracy.max()) / (pl.len() - 1)
    runs = features.group_by("plr", "seed", "run").agg(value=standing)
    return _contrast(
        evidence,
        runs,
        "The accuracy of a model's best feature exceeds that of its other features by {near} just above the threshold "
        "({plrs}), {below} where training converges",
        unit=" points",
    )


def middle_band(evidence: Evidence) -> Judgement:
    """Just above the threshold networks recognise more from only the middle frequencies (Figs. 6, 7).

    The effect is the gain in accuracy on images with only the middle band, over models from regime 1; means over
    PLRs, of models fine-tuned with the lowest FLR if these were measured.
    """
    alone = _final(evidence.table("bands")).filter(pl.col("kept") & (pl.col("low") > 0))
    if alone.is_empty():
        raise NotMeasured("Needs images, and measure.bands in the spec.")
    highest = alone["high"].max()
    half = highest // 2 if isinstance(highest, int) else 0
    middle = alone.filter(pl.col("low") <= half, pl.col("high") >= half)
    low, high = middle["low"].min(), middle["high"].max()
    runs = middle.group_by("plr", "seed", "run").agg(value=pl.col("accuracy").mean())
    return _contrast(
        evidence,
        runs,
        f"On images with only the bands {low} to {high}, accuracy is {{near}} just above the threshold ({{plrs}}), "
        "{below} where training converges",
        unit="%",
    )


def _final(measured: pl.DataFrame) -> pl.DataFrame:
    """The rows of models fine-tuned with the lowest FLR, or of pre-trained ones if there are none.

    If no row has an accuracy, nothing was measured, and there are no rows.
    """
    if measured["accuracy"].count() == 0:
        return measured.clear()
    tuned = measured.filter(stage="finetune").filter(pl.col("flr") == pl.col("flr").min())
    return measured.filter(stage="pretrain") if tuned.is_empty() else tuned


def _contrast(evidence: Evidence, runs: pl.DataFrame, sentence: str, *, unit: str) -> Judgement:
    """Whether a value is larger just above the threshold than in regime 1, and not even larger beyond."""
    evidence.must_span()
    groups = {"near": evidence.sides.near, "below": evidence.sides.below, "beyond": evidence.sides.beyond}
    seeds = complete_seeds(runs)
    values = {name: per_seed(runs, plrs, pl.col("value"), seeds) for name, plrs in groups.items()}
    effect = mean_of(values["near"] - values["below"])
    verdict = exceeds(effect, 0.0, negligible=NEGLIGIBLE)
    further = not np.isnan(values["beyond"]).any()
    if further and exceeds(mean_of(values["beyond"] - values["near"]), NEGLIGIBLE) == "supported":
        verdict = "contradicted"
    sizes = {name: f"{100 * value.mean():.1f}{unit}" for name, value in values.items()}
    said = sentence.format(near=sizes["near"], plrs=lr_range(evidence.sides.near), below=sizes["below"])
    if further:
        said += f", {sizes['beyond']} at larger learning rates"
    said += f"; the gain over convergence is {describe_effect(effect)}."
    return evidence.found(verdict, effect, said, open_because=what_would_tell(effect), negligible=NEGLIGIBLE)
