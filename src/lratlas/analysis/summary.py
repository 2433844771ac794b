"""A finished study in a few plain sentences."""

import polars as pl

from lratlas.analysis.gains import Gain
from lratlas.analysis.labels import SLOW, UNBOUNDED, UNMOVED
from lratlas.analysis.minima_summary import minima_sentences
from lratlas.analysis.quality import GAIN, Best, Score, best_averaged, best_fine_tuned, converging, score_of
from lratlas.analysis.regimes import ALL_TOO_SMALL, all_too_small, undecided
from lratlas.analysis.wording import format_lr, plain, signed_interval, told_apart
from lratlas.tables import Tables, completed, has_accuracy


def summary(tables: Tables, *, elr: bool) -> list[str]:
    """Say in plain sentences what a study found.

    Args:
        tables: A study's tables with ``runs``, ``regimes`` and ``boundaries``; all others if any.
        elr: Whether the LRs are effective ones, of a scale-invariant model.

    Returns:
        One sentence where every LR is too small; else one to three sentences each about the boundaries, the best
        initial LR after fine-tuning, the best weight average, the features, the Fourier bands, the growth of epochs to
        convergence, two stages, norms and sharpness; nothing about what was not measured.
    """
    name = "effective learning rate" if elr else "learning rate"
    regimes = completed(tables["regimes"], "regimes").sort("plr")
    if regimes.is_empty():
        return ["No pre-training run has finished yet."]
    if all_too_small(regimes):
        return [ALL_TOO_SMALL]
    bounds = {row["boundary"]: row for row in tables["boundaries"].iter_rows(named=True)}
    runs = tables["runs"]
    score = score_of(runs)
    sentences = [
        _convergence(regimes, bounds["convergence"], name),
        _subregime(bounds["subregime"]),
        _divergence(regimes, bounds["divergence"], _at_chance(runs)),
        _too_small(regimes),
        _undecided(regimes),
        _fine_tuned(best_fine_tuned(tables, score), score, regimes),
        _averaged(best_averaged(tables, score), score),
        _features(tables.get("sparsity"), regimes),
        _bands(tables.get("bands"), regimes),
    ]
    return [*(sentence for sentence in sentences if sentence), *minima_sentences(tables)]


def _where(row: dict[str, float | None]) -> str:
    """A boundary's value with its grid points, and its interval or why there is none."""
    found = {key: value for key, value in row.items() if isinstance(value, float)}
    digits = told_apart([found["below"], found["value"], found["above"]])
    numbers = {key: format_lr(value, digits=digits) for key, value in found.items()}
    interval = (
        f"95 % interval over seeds {numbers['low']} to {numbers['high']}"
        if "low" in numbers
        else "one seed: no interval"
    )
    return f"{numbers['value']} (between the tested {numbers['below']} and {numbers['above']}; {interval})"


def _convergence(regimes: pl.DataFrame, row: dict[str, float | None], name: str) -> str:
    if row["value"] is not None:
        return (
            f"Training converges up to a constant {name} of about {_where(row)}: "
            f"smaller ones{_down_to(regimes)} bring the training loss down towards zero, larger ones do not."
        )
    low, high = regimes["plr"][0], regimes["plr"][-1]
    span = f"between {format_lr(low)} and {format_lr(high)}" if low < high else format_lr(low)
    found = regimes["regime"] == "1"
    if found.all():
        return f"Training converges at every {name} tested, {span}; the convergence threshold lies higher."
    if not undecided(regimes).is_empty():
        return f"The convergence threshold cannot be told {span}: some learning rates are undecided."
    if not found.any():
        return f"Training converges at no {name} tested, {span}, within the steps given."
    return f"The convergence threshold could not be placed {span}."


def _down_to(regimes: pl.DataFrame) -> str:
    """Where regime 1 begins, if smaller PLRs are too small or undecided."""
    lowest = regimes.filter(regime="1")["plr"].min()
    return f", down to {format_lr(lowest)}," if isinstance(lowest, float) and lowest > regimes["plr"][0] else ""


def _subregime(row: dict[str, float | None]) -> str:
    if row["value"] is None:
        return ""
    return (
        f"From the convergence threshold up to about {_where(row)}, the solutions fine-tuned with a small "
        "and with a large learning rate and the average of the weights lie in one basin: no notable error "
        "barrier separates them. Above, barriers appear."
    )


def _at_chance(runs: pl.DataFrame) -> str:
    return (
        "predictions are no better than chance" if has_accuracy(runs) else "the loss is no lower than without training"
    )


def _divergence(regimes: pl.DataFrame, row: dict[str, float | None], at_chance: str) -> str:
    if row["value"] is not None:
        return f"Training diverges above about {_where(row)}: {at_chance} there."
    diverged = regimes["regime"] == "3"
    if diverged.all():
        return f"Training diverges at every learning rate tested: {at_chance}."
    if not diverged.any():
        return "Training diverges at no learning rate tested."
    return "Where training begins to diverge could not be placed."


def _too_small(regimes: pl.DataFrame) -> str:
    said = {
        UNMOVED: "the loss has not moved from its start",
        SLOW: "predictions are at chance level after these steps, though a larger learning rate converges",
    }
    plrs = {reason: regimes.filter(reason=reason)["plr"].to_list() for reason in said}
    return " ".join(f"Too small: {_listed(plrs[reason])}; {words}." for reason, words in said.items() if plrs[reason])


def _undecided(regimes: pl.DataFrame) -> str:
    found = undecided(regimes)
    if found.is_empty():
        return ""
    parts = [
        _listed(part["plr"].to_list()) + (f" ({reason})" if reason else "")
        for (reason,), part in found.group_by("reason", maintain_order=True)
    ]
    advice = "More steps or more frequent traces should decide."
    if (found["reason"] == UNBOUNDED).any():
        advice = "Add a constant to the loss, so that a perfect fit has the loss 0."
    return f"Undecided: {'; '.join(parts)}. {advice}"


def _listed(plrs: list[float]) -> str:
    return ", ".join(format_lr(plr) for plr in plrs)


def _fine_tuned(best: Best | None, score: Score, regimes: pl.DataFrame) -> str:
    if best is None or best.flr is None:
        return ""
    already = " Training converges there already." if best.plr in converging(regimes) else ""
    return (
        f"After fine-tuning with the lowest learning rate ({format_lr(best.flr)}), the best initial one is "
        f"{format_lr(best.plr)}: {score.name} {score.show(best.value)}.{already}{_gain(best.gain, score)}"
    )


def _averaged(best: Best | None, score: Score) -> str:
    if best is None:
        return ""
    return (
        f"The best weight average is over {best.count} checkpoints at {format_lr(best.plr)}: "
        f"{score.name} {score.show(best.value)}.{_gain(best.gain, score)}"
    )


def _gain(found: Gain | None, score: Score) -> str:
    """The gain across the convergence threshold as one sentence; empty where there is none."""
    if found is None:
        return ""
    unit, factor = (" points", 100) if score.more_is_better else ("", 1)
    start = f" {GAIN[0].upper()}{GAIN[1:]} is {plain(factor * found.mean)}{unit}"
    if found.low is None or found.high is None:
        return f"{start} ({'one seed: no' if found.seeds == 1 else 'two seeds: too few for an'} interval)."
    meaning = ", so it may be none" if found.low <= 0 <= found.high else ""
    interval = signed_interval(factor * found.low, factor * found.high)
    return f"{start} (95 % interval over seeds {interval}{meaning})."


def _features(sparsity: pl.DataFrame | None, regimes: pl.DataFrame) -> str:
    if sparsity is None:
        return ""
    trained = sparsity.filter(pl.col("stage") == "pretrain")
    if trained.is_empty():
        return ""
    best = trained.sort("top_accuracy", descending=True).row(0, named=True)
    text = (
        f"Features: the strongest alone gives {100 * best['top_accuracy']:.1f} % accuracy at {format_lr(best['plr'])}"
    )
    if best["rest_accuracy"] is not None:
        text += f", the others {100 * best['rest_accuracy']:.1f} % on average"
    below = trained.filter(pl.col("plr").is_in(converging(regimes)) & (pl.col("plr") != best["plr"]))
    if below.is_empty():
        return f"{text}."
    top = below.select(pl.col("top_accuracy").max()).item()
    other = "other " if best["plr"] in converging(regimes) else ""
    return f"{text}; at the {other}learning rates where training converges, at most {100 * top:.1f} %."


def _bands(bands: pl.DataFrame | None, regimes: pl.DataFrame) -> str:
    """The band in whose images alone the PLRs differ most: the best PLR against those where training converges."""
    if bands is None:
        return ""
    alone = bands.filter(pl.col("kept") & (pl.col("low") > 0)).drop_nulls("accuracy")
    tuned = alone.filter(pl.col("flr") == pl.col("flr").min())
    shown, models = (alone.filter(stage="pretrain"), "pre-trained") if tuned.is_empty() else (tuned, "fine-tuned")
    if shown.is_empty():
        return ""
    means = shown.group_by("low", "high", "plr").agg(pl.col("accuracy").mean()).sort("low", "high", "plr")
    below = converging(regimes)
    gains = means.group_by("low", "high", maintain_order=True).agg(
        pl.col("plr").get(pl.col("accuracy").arg_max()),
        pl.col("accuracy").max(),
        pl.col("accuracy").filter(pl.col("plr").is_in(below)).max().alias("below"),
    )
    most = gains.sort(pl.col("accuracy") - pl.col("below").fill_null(0.0), descending=True).row(0, named=True)
    text = (
        f"Fourier bands: of images with only the bands {most['low']} to {most['high']} left, {models} models recognise"
        f" most at {format_lr(most['plr'])}, {100 * most['accuracy']:.1f} %"
    )
    if most["below"] is None or most["plr"] in below:
        return f"{text}."
    return f"{text}; from learning rates where training converges, at most {100 * most['below']:.1f} %."
