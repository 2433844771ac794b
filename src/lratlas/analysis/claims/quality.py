"""Claims about final quality: best just above the threshold, for any FLR, and recovered by a second PLR."""

import polars as pl

from lratlas.analysis.claims.evidence import (
    NEGLIGIBLE,
    Evidence,
    Judgement,
    NotMeasured,
    Unanswered,
    Verdict,
    describe_effect,
    exceeds,
    lr_range,
    mean_of,
    opposite,
    per_seed,
    together,
    what_would_tell,
)
from lratlas.analysis.minima import two_stages
from lratlas.analysis.scores import (
    GAIN,
    average_runs,
    complete_seeds,
    estimate_gain,
    fine_tuned_runs,
    means,
    score_of,
    threshold_gain,
)
from lratlas.tables import direct
from lratlas.text import format_lr

# Accuracies that differ by at most two points hardly depend on the FLR.
HARDLY = 0.02
# Two stages recover quality if at most one point is missing.
RECOVERED = 0.01


def best_fine_tuned(evidence: Evidence) -> Judgement:
    """Fine-tuned with the lowest FLR, PLRs just above the threshold give the best models (Figs. 1, 5).

    The effect is the gain of the best of them over the best PLR of regime 1.
    """
    runs = fine_tuned_runs(evidence.table("runs"))
    if runs.is_empty():
        raise NotMeasured("Needs fine-tuned models; add [finetune] to the spec.")
    return _best_near(evidence, runs, f"After fine-tuning with {format_lr(runs['flr'][0])}")


def best_averaged(evidence: Evidence) -> Judgement:
    """Averages of weights (SWA) from PLRs just above the threshold are the best (Figs. 1, 5).

    The effect is the gain of the best of them over the best from regime 1, of all numbers of checkpoints.
    """
    runs = average_runs(evidence.table("runs"))
    if runs.is_empty():
        raise NotMeasured("Needs averaged weights; add [average] to the spec.")
    return _best_near(evidence, runs, "After averaging the weights of checkpoints")


def flr_matters(evidence: Evidence) -> Judgement:
    """Just above the threshold quality hardly depends on the FLR, beyond that range it does (Fig. 1).

    The effect is the difference of accuracy between the lowest and the highest FLR beyond, mean over PLRs, minus the
    difference just above the threshold.
    """
    runs = direct(evidence.table("runs")).filter(stage="finetune")
    flrs = runs.drop_nulls("test_accuracy")["flr"].unique().sort().to_list()
    if len(flrs) < 2:
        raise NotMeasured("Needs test accuracies after fine-tuning with at least two learning rates.")
    evidence.must_span(beyond=True)
    accuracy = pl.col("test_accuracy")
    ends = runs.filter(pl.col("flr").is_in([flrs[0], flrs[-1]]))
    seeds, sides = complete_seeds(ends), evidence.sides
    spread = ends.group_by("plr", "seed").agg(
        value=pl.when(accuracy.count() == 2).then(accuracy.max() - accuracy.min())
    )
    near, beyond = (
        per_seed(spread, plrs, pl.col("value"), seeds) for plrs in (evidence.sides.near, evidence.sides.beyond)
    )
    effect, level, further = mean_of(beyond - near), mean_of(near), mean_of(beyond)
    parts = (exceeds(effect, 0.0, negligible=NEGLIGIBLE), opposite(exceeds(level, HARDLY)))
    said = (
        f"Between fine-tuning with {format_lr(flrs[0])} and with {format_lr(flrs[-1])}, test accuracy differs by "
        f"{describe_effect(level)} just above the threshold ({lr_range(sides.near)}) and by {describe_effect(further)} "
        f"at larger learning rates ({lr_range(sides.beyond)}); up to {100 * HARDLY:g} points hardly matter."
    )
    open_part = (effect, 0.0) if parts[0] == "inconclusive" else (level, HARDLY)
    what = what_would_tell(*open_part)
    return evidence.found(together(*parts), effect, said, open_because=what, negligible=NEGLIGIBLE)


def two_stages_recover(evidence: Evidence) -> Judgement:
    """A second PLR just above the threshold makes up for a first one that was too large (Fig. 12).

    The effect is the gain of PLR high → PLR low → lowest FLR over PLR high → lowest FLR, mean over pairs.
    """
    runs = evidence.table("runs")
    scores = two_stages(runs).filter(pl.col("flr") == pl.col("flr").min())
    if scores.is_empty():
        second = runs["plr2"].null_count() < runs.height
        lack = "Needs test accuracies" if second else "Needs a second learning rate; add [second] to the spec"
        raise NotMeasured(f"{lack}.")
    evidence.must_span(beyond=True)
    pairs = scores.filter(pl.col("plr").is_in(evidence.sides.beyond), pl.col("plr2").is_in(evidence.sides.near))
    if pairs.is_empty():
        raise Unanswered(
            "Inconclusive: no run goes from a learning rate beyond the range just above the threshold to one within it "
            f"({lr_range(evidence.sides.near)})."
        )
    ways = pairs.pivot("way", index=["plr", "plr2", "seed"], values="test_accuracy")
    if not {"high", "low", "both"} <= {*ways.columns}:
        raise Unanswered("Inconclusive: direct fine-tuning from both learning rates is missing; add them to the grid.")
    whole = ways.drop_nulls(["high", "low", "both"])
    whole = whole.filter(pl.col("seed").is_in(complete_seeds(whole)))
    whole = whole.filter(pl.len().over("plr", "plr2") == whole["seed"].n_unique())
    means = whole.group_by("seed").agg(pl.col("high", "low", "both").mean()).sort("seed")
    high, low, both = (means[way].to_numpy() for way in ("high", "low", "both"))
    effect, behind = mean_of(both - high), mean_of(both - low)
    parts = (exceeds(effect, 0.0, negligible=NEGLIGIBLE), exceeds(behind, -RECOVERED))
    first, second = (lr_range(whole[name].unique().sort().to_list()) for name in ("plr", "plr2"))
    said = (
        f"From a learning rate that is too large ({first}), a second one just above the threshold ({second}) leads to "
        f"{100 * both.mean():.1f}% test accuracy, against {100 * high.mean():.1f}% without it, a gain of "
        f"{describe_effect(effect)}, and {100 * low.mean():.1f}% with only the second, a difference of "
        f"{describe_effect(behind)}."
    )
    open_part = (effect, 0.0) if parts[0] == "inconclusive" else (behind, -RECOVERED)
    what = what_would_tell(*open_part)
    return evidence.found(together(*parts), effect, said, open_because=what, negligible=NEGLIGIBLE)


def _best_near(evidence: Evidence, runs: pl.DataFrame, lead: str) -> Judgement:
    """Whether the best models come from a PLR just above the threshold."""
    evidence.must_span()
    sides, score = evidence.sides, score_of(evidence.tables["runs"])
    complete = runs.filter(pl.col("seed").is_in(complete_seeds(runs)))
    found = means(complete, score, "plr", "count")
    best = {
        name: score.best(group)
        for name, plrs in (("near", sides.near), ("below", sides.below), ("beyond", sides.beyond))
        if len(group := found.filter(pl.col("plr").is_in(plrs)))
    }
    effect = threshold_gain(runs, sides, score)
    if effect is None:
        raise Unanswered("Inconclusive: some seeds have no final model on one side of the threshold.")
    negligible = NEGLIGIBLE if score.more_is_better else NEGLIGIBLE * abs(best["below"]["value"])
    parts: list[Verdict] = [exceeds(effect, 0.0, negligible=negligible)]
    further = estimate_gain(runs, sides.beyond, sides.near, score)
    if further and exceeds(further, negligible) == "supported":
        parts.append("contradicted")
    shown = describe_effect(effect) if score.more_is_better else describe_effect(effect, factor=1, unit="")
    larger = (
        f"Larger learning rates reach at most {score.show(best['beyond']['value'])}."
        if further
        else "No larger learning rate was tested."
    )
    said = (
        f"{lead}, {score.name} is {score.show(best['near']['value'])} from {_name_model(best['near'])}, the best start "
        f"just above the threshold, and {score.show(best['below']['value'])} from {_name_model(best['below'])}, the "
        f"best start that converges; {GAIN} is {shown}. {larger}"
    )
    return evidence.found(together(*parts), effect, said, open_because=what_would_tell(effect), negligible=negligible)


def _name_model(best: dict[str, float]) -> str:
    return format_lr(best["plr"]) + (f" with {best['count']:.0f} checkpoints" if best["count"] else "")
