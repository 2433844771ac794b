"""The findings of a study, in sentences."""

import polars as pl

from lratlas.analysis.estimates import COVERAGE, Gain, best_over_best
from lratlas.analysis.labels import SLOW, UNBOUNDED, UNMOVED
from lratlas.analysis.minima import (
    FACTOR,
    at_equal_loss,
    flatness_correlation,
    norm_spread,
    pool_norms,
    two_stage_means,
    two_stages,
)
from lratlas.analysis.power_law import FEWEST_POINTS, rising
from lratlas.analysis.regimes import ALL_TOO_SMALL, all_too_small, undecided_plrs
from lratlas.analysis.scores import (
    GAIN,
    Best,
    Score,
    best_averaged,
    best_fine_tuned,
    complete_seeds,
    converging,
    options,
    score_of,
)
from lratlas.tables import Tables, add_missing_columns, has_accuracy, table
from lratlas.text import digits_needed, format_lr, join_words, plain, signed_interval


def summary(tables: Tables, *, elr: bool) -> list[str]:
    """Summarize the findings of a study in plain sentences.

    Args:
        tables: A study's tables with ``runs``, ``regimes`` and ``boundaries``, and any others.
        elr: Whether the LRs are effective ones, of a scale-invariant model.

    Returns:
        One sentence if every LR is too small; else one to three sentences each about the boundaries, the best
        initial LR after fine-tuning, the best weight average, the features, the Fourier bands, the growth of epochs to
        convergence, two stages, norms and sharpness. Quantities that were not measured are omitted.
    """
    name = "effective learning rate" if elr else "learning rate"
    regimes = add_missing_columns(tables["regimes"], "regimes").sort("plr")
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
        _undecided_sentence(regimes),
        _fine_tuned_sentence(best_fine_tuned(tables, score), score, regimes),
        _average_sentence(best_averaged(tables, score), score),
        _features(tables.get("sparsity"), regimes),
        _bands(tables.get("bands"), regimes),
    ]
    return [*(sentence for sentence in sentences if sentence), *minima_sentences(tables)]


def _where(row: dict[str, float | None]) -> str:
    """A boundary's value with its grid points, and its interval or the reason for its absence."""
    found = {key: value for key, value in row.items() if isinstance(value, float)}
    digits = digits_needed([found["below"], found["value"], found["above"]])
    numbers = {key: format_lr(value, digits=digits) for key, value in found.items()}
    interval = (
        f"95% interval over seeds {numbers['low']} to {numbers['high']}"
        if "low" in numbers
        else "no interval with one seed"
    )
    return f"{numbers['value']} (between the tested {numbers['below']} and {numbers['above']}; {interval})"


def _convergence(regimes: pl.DataFrame, row: dict[str, float | None], name: str) -> str:
    if row["value"] is not None:
        return (
            f"Training converges up to a constant {name} of about {_where(row)}. "
            f"Smaller ones{_down_to(regimes)} bring the training loss close to zero; larger ones do not."
        )
    low, high = regimes["plr"][0], regimes["plr"][-1]
    span = f"between {format_lr(low)} and {format_lr(high)}" if low < high else format_lr(low)
    unclear = f"The convergence threshold is unclear {span if low < high else f'at {span}'}"
    found = regimes["regime"] == "1"
    if found.all():
        return f"Training converges at every tested {name}, {span}; the convergence threshold is higher."
    if not undecided_plrs(regimes).is_empty():
        return f"{unclear}: some learning rates are undecided."
    if not found.any():
        return f"Training converges at no tested {name}, {span}, in this number of steps."
    return f"{unclear}."


def _down_to(regimes: pl.DataFrame) -> str:
    """The start of regime 1, if smaller PLRs are too small or undecided."""
    lowest = regimes.filter(regime="1")["plr"].min()
    return f", down to {format_lr(lowest)}," if isinstance(lowest, float) and lowest > regimes["plr"][0] else ""


def _subregime(row: dict[str, float | None]) -> str:
    if row["value"] is None:
        return ""
    return (
        f"From the convergence threshold up to about {_where(row)}, one basin holds the solutions fine-tuned with "
        "a small and a large learning rate and the averaged weights: no notable error barrier separates them. "
        "At larger learning rates, barriers appear."
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
        return f"Training diverges at every tested learning rate: {at_chance}."
    if not diverged.any():
        return "Training diverges at no tested learning rate."
    return "The divergence boundary is unclear."


def _too_small(regimes: pl.DataFrame) -> str:
    said = {
        UNMOVED: "the loss has not changed from its start",
        SLOW: "predictions are still at chance, although a larger learning rate converges",
    }
    plrs = {reason: regimes.filter(reason=reason)["plr"].to_list() for reason in said}
    return " ".join(f"Too small: {_plr_list(plrs[reason])}; {words}." for reason, words in said.items() if plrs[reason])


def _undecided_sentence(regimes: pl.DataFrame) -> str:
    found = undecided_plrs(regimes)
    if found.is_empty():
        return ""
    parts = [
        _plr_list(part["plr"].to_list()) + (f" ({reason})" if reason else "")
        for (reason,), part in found.group_by("reason", maintain_order=True)
    ]
    advice = "More steps or more frequent traces should help."
    if (found["reason"] == UNBOUNDED).any():
        advice = "Add a constant to the loss so that a perfect fit has loss 0."
    return f"Undecided: {'; '.join(parts)}. {advice}"


def _plr_list(plrs: list[float]) -> str:
    return ", ".join(format_lr(plr) for plr in plrs)


def _fine_tuned_sentence(best: Best | None, score: Score, regimes: pl.DataFrame) -> str:
    if best is None or best.flr is None:
        return ""
    already = " Training already converges there." if best.plr in converging(regimes) else ""
    return (
        f"After fine-tuning with the lowest learning rate ({format_lr(best.flr)}), the best initial one is "
        f"{format_lr(best.plr)}, with {score.name} {score.show(best.value)}.{already}{_gain(best.gain, score)}"
    )


def _average_sentence(best: Best | None, score: Score) -> str:
    if best is None:
        return ""
    return (
        f"The best weight average is over {best.count} checkpoints at {format_lr(best.plr)}, "
        f"with {score.name} {score.show(best.value)}.{_gain(best.gain, score)}"
    )


def _gain(found: Gain | None, score: Score) -> str:
    """The gain across the convergence threshold as one sentence; empty if there is none."""
    if found is None:
        return ""
    unit, factor = (" points", 100) if score.more_is_better else ("", 1)
    start = f" {GAIN[0].upper()}{GAIN[1:]} is {plain(factor * found.mean)}{unit}"
    if found.low is None or found.high is None:
        return f"{start} (no interval with {'one seed' if found.seeds == 1 else 'two seeds'})."
    meaning = "; it may be zero" if found.low <= 0 <= found.high else ""
    interval = signed_interval(factor * found.low, factor * found.high)
    return f"{start} (95% interval over seeds {interval}{meaning})."


def _features(sparsity: pl.DataFrame | None, regimes: pl.DataFrame) -> str:
    if sparsity is None:
        return ""
    trained = sparsity.filter(pl.col("stage") == "pretrain")
    if trained.is_empty():
        return ""
    best = trained.sort("top_accuracy", descending=True).row(0, named=True)
    text = f"Features: accuracy on the strongest one is {100 * best['top_accuracy']:.1f}% at {format_lr(best['plr'])}"
    if best["rest_accuracy"] is not None:
        text += f", on the others {100 * best['rest_accuracy']:.1f}% on average"
    below = trained.filter(pl.col("plr").is_in(converging(regimes)) & (pl.col("plr") != best["plr"]))
    if below.is_empty():
        return f"{text}."
    top = below.select(pl.col("top_accuracy").max()).item()
    other = "other " if best["plr"] in converging(regimes) else ""
    return f"{text}; at the {other}learning rates where training converges, it is at most {100 * top:.1f}%."


def _bands(bands: pl.DataFrame | None, regimes: pl.DataFrame) -> str:
    """The single band whose images separate the PLRs most: the best PLR against those where training converges."""
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
        f"Fourier bands: on images with only bands {most['low']} to {most['high']}, {models} models are most accurate"
        f" at {format_lr(most['plr'])}, {100 * most['accuracy']:.1f}%"
    )
    if most["below"] is None or most["plr"] in below:
        return f"{text}."
    return f"{text}; where training converges, they reach at most {100 * most['below']:.1f}%."


def minima_sentences(tables: Tables) -> list[str]:
    """Summarize the findings about the threshold, two stages, norms and sharpness in plain sentences.

    Args:
        tables: A study's tables; only ``convergence``, ``power_law``, ``runs``, ``norms``, ``sharpness`` and
            ``regimes`` are read, and any may be missing.

    Returns:
        One or two sentences for each of the four; quantities that were not measured are omitted.
    """
    sentences = [threshold_sentence(tables), stages(tables), norms(tables), sharpness(tables)]
    return [sentence for sentence in sentences if sentence]


def threshold_sentence(tables: Tables) -> str:
    """The growth of the epochs to convergence with the PLR, as a power law if one was fitted (Fig. 11 of the paper).

    Args:
        tables: A study's tables; ``convergence`` and ``power_law``.

    Returns:
        A text; empty if no epochs were counted.
    """
    convergence = table(tables, "convergence")
    if convergence.is_empty():
        return ""
    part = rising(convergence)
    if part.is_empty():
        return "At no tested learning rate did more than half of the seeds fit every training sample in an epoch."
    growth = _growth(part, convergence)
    law = {row["parameter"]: row for row in table(tables, "power_law").iter_rows(named=True)}
    if not law:
        few = part.height < FEWEST_POINTS
        why = (
            f"a power law needs {FEWEST_POINTS} learning rates with rising epochs"
            if few
            else "the epochs do not determine one"
        )
        return f"{growth}. No threshold is fitted: {why}."
    place, exponent = law["threshold"], law["exponent"]
    return (
        f"{growth}. The growth follows a power law in the distance to a threshold of "
        f"{format_lr(place['value'], digits=3)}{_interval(place, lr=True)}, with exponent −{exponent['value']:.2g}"
        f"{_interval(exponent, lr=False)}."
    )


def stages(tables: Tables) -> str:
    """The best two-stage way against the best direct ways from its two PLRs (Fig. 12 of the paper).

    Args:
        tables: A study's tables; ``runs``.

    Returns:
        A text; empty if no model was fine-tuned after a second PLR.
    """
    runs = table(tables, "runs")
    best = two_stage_means(runs).filter(way="both").sort("mean", descending=True, maintain_order=True).head(1)
    if best.is_empty():
        return ""
    plr, plr2, flr, mean = best.select("plr", "plr2", "flr", "mean").row(0)
    scores = two_stages(runs)
    ways = [
        text
        for way, kind in (("high", "first"), ("low", "second"))
        if (text := _against(scores, way, f"direct path from a {kind} learning rate"))
    ]
    way = " → ".join(format_lr(lr) for lr in (plr, plr2, flr))
    lead = f"Two stages: the best path, {way}, reaches {100 * mean:.1f}% test accuracy."
    return f"{lead} The best two-stage path is {' and '.join(ways)}." if ways else lead


def norms(tables: Tables) -> str:
    """The spread of the norms of the filters, also in regime 3 if there is one (Fig. 13 of the paper).

    Args:
        tables: A study's tables; ``norms`` and ``regimes``.

    Returns:
        A text; empty if no norms were measured.
    """
    spread = norm_spread(pool_norms(tables))
    if spread.is_empty():
        return ""
    names = spread["regime"].cast(pl.String).unique(maintain_order=True).to_list()
    name = "3" if "3" in names else names[-1]
    rows = spread.filter(pl.col("regime").cast(pl.String) == name).iter_rows(named=True)
    parts = [
        f"{row['spread']:.2g} decades {row['state']}" + (f" with {format_lr(row['flr'])}" if row["flr"] else "")
        for row in rows
    ]
    where = "" if name == "all" else f" of regime {name}" if name != "undecided" else " at undecided learning rates"
    return f"Norms: 90% of the filters{where} span {join_words(parts)}."


def sharpness(tables: Tables) -> str:
    """Whether sharper minima have larger test errors at about equal training loss (Fig. 26 of the paper).

    Args:
        tables: A study's tables; ``sharpness`` and ``regimes``.

    Returns:
        A text; empty if no sharpness or no test error was measured.
    """
    models = at_equal_loss(tables)
    if models["test_error"].count() == 0:
        return ""
    found = flatness_correlation(models)
    missed = models.height - models["converged"].sum()
    caveat = f" The eigenvalue did not converge for {missed} of these {models.height} models." if missed else ""
    lead = f"Sharpness at a training loss of about {models['level'][0]:.2g} (within a factor of {FACTOR})"
    if found.coefficient is None or found.p is None:
        return f"{lead}: too few different models ({found.plrs} learning rates) to relate it to the test error.{caveat}"
    clear = found.p < 1 - COVERAGE
    verb = "rises" if found.coefficient > 0 else "falls"
    trend = (
        f"the test error {verb} with the top Hessian eigenvalue"
        if clear
        else ("no clear relation between the top Hessian eigenvalue and the test error")
    )
    chance = f"p = {found.p:.2g}" if found.p >= 1e-3 else "p below 0.001"
    coefficient = f"{found.coefficient:.2f}".replace("-", "−")
    return f"{lead}: {trend} (rank correlation {coefficient} over {found.plrs} learning rates, {chance}).{caveat}"


def _growth(part: pl.DataFrame, convergence: pl.DataFrame) -> str:
    """The range over which the epochs rise, and the PLR at which half of the seeds never converge."""
    first, last = part.row(0, named=True), part.row(-1, named=True)
    start = f"{first['epochs']:,.0f} at {format_lr(first['plr'], digits=3)}"
    if part.height == 1:
        text = f"Epochs to convergence are fewest at the largest learning rate that converges: {start}"
    else:
        end = f"{last['epochs']:,.0f} at {format_lr(last['plr'], digits=3)}"
        text = f"Epochs to convergence grow from {start} to {end}"
    beyond = convergence.filter(pl.col("plr") > last["plr"])["plr"].min()
    if not isinstance(beyond, float):
        return text
    return f"{text}; at {format_lr(beyond, digits=3)} at least half of the seeds never converged"


def _interval(row: dict[str, float | None], *, lr: bool) -> str:
    low, high = row["low"], row["high"]
    if low is None or high is None:
        return " (no interval)"
    ends = [format_lr(end, digits=3) if lr else f"−{end:.2g}" for end in ((low, high) if lr else (high, low))]
    return f" (95% interval {ends[0]} to {ends[1]})"


def _against(scores: pl.DataFrame, way: str, named: str) -> str:
    """The gain of the best two-stage ways over the best direct ways of one kind."""
    seeds = complete_seeds(scores.filter(way="both"))
    ours, theirs = (
        options(scores.filter(way=kind), "test_accuracy", "plr", "plr2", "flr", seeds=seeds) for kind in ("both", way)
    )
    if not len(ours) or not len(theirs):
        return ""
    gain = best_over_best(ours, theirs)
    text = f"{abs(100 * gain.mean):.2g} points {'above' if gain.mean >= 0 else 'below'} the best {named}"
    if gain.low is None or gain.high is None:
        return text
    meaning = "; it may be zero" if gain.low < 0 < gain.high else ""
    return f"{text} (95% interval of the gain over seeds {signed_interval(100 * gain.low, 100 * gain.high)}{meaning})"
