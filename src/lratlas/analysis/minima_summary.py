"""The convergence threshold, the ways of two stages, the filters' norms and the sharpness in a few plain sentences."""

import polars as pl

from lratlas.analysis.equal_loss import FACTOR, at_equal_loss, flatness_correlation
from lratlas.analysis.gains import COVERAGE, best_over_best
from lratlas.analysis.norm_spread import norm_spread, pooled_norms
from lratlas.analysis.power_law import FEWEST_POINTS, rising
from lratlas.analysis.quality import complete_seeds, options
from lratlas.analysis.two_stages import two_stage_means, two_stages
from lratlas.analysis.wording import format_lr, signed_interval
from lratlas.tables import Tables, table


def minima_sentences(tables: Tables) -> list[str]:
    """Say in plain sentences what was found about the threshold, two stages, norms and sharpness.

    Args:
        tables: A study's tables; of them ``convergence``, ``power_law``, ``runs``, ``norms``, ``sharpness`` and
            ``regimes``, any of which may be missing.

    Returns:
        One or two sentences for each of the four; nothing about what was not measured.
    """
    sentences = [threshold(tables), stages(tables), norms(tables), sharpness(tables)]
    return [sentence for sentence in sentences if sentence]


def threshold(tables: Tables) -> str:
    """How the epochs to convergence grow with the PLR, as a power law where there is one (Fig. 11 of the paper).

    Args:
        tables: A study's tables; ``convergence`` and ``power_law``.

    Returns:
        A text, empty where no epochs were counted.
    """
    convergence = table(tables, "convergence")
    if convergence.is_empty():
        return ""
    part = rising(convergence)
    if part.is_empty():
        return "At no learning rate tested did more than half of the seeds ever fit every training sample in an epoch."
    growth = _growth(part, convergence)
    law = {row["parameter"]: row for row in table(tables, "power_law").iter_rows(named=True)}
    if not law:
        few = part.height < FEWEST_POINTS
        why = f"a power law needs {FEWEST_POINTS} rising learning rates" if few else "the epochs leave it open"
        return f"{growth}. No threshold is fitted: {why}."
    place, exponent = law["threshold"], law["exponent"]
    return (
        f"{growth}. The growth follows a power of the distance to a threshold of "
        f"{format_lr(place['value'], digits=3)}{_interval(place, lr=True)}, with exponent −{exponent['value']:.2g}"
        f"{_interval(exponent, lr=False)}."
    )


def stages(tables: Tables) -> str:
    """The best way of two stages against the best direct ways from its two PLRs (Fig. 12 of the paper).

    Args:
        tables: A study's tables; ``runs``.

    Returns:
        A text, empty where no model was fine-tuned after a second PLR.
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
        if (text := _against(scores, way, f"directly from a {kind} learning rate"))
    ]
    way = " → ".join(format_lr(lr) for lr in (plr, plr2, flr))
    lead = f"Two stages: the best test accuracy, {100 * mean:.1f} %, comes by {way}."
    return f"{lead} The best of two stages is {' and '.join(ways)}." if ways else lead


def norms(tables: Tables) -> str:
    """How widely the norms of the filters are spread, in regime 3 where there is one (Fig. 13 of the paper).

    Args:
        tables: A study's tables; ``norms`` and ``regimes``.

    Returns:
        A text, empty where no norms were measured.
    """
    spread = norm_spread(pooled_norms(tables))
    if spread.is_empty():
        return ""
    names = spread["regime"].cast(pl.String).unique(maintain_order=True).to_list()
    name = "3" if "3" in names else names[-1]
    rows = spread.filter(pl.col("regime").cast(pl.String) == name).iter_rows(named=True)
    parts = [
        f"{row['spread']:.2g} decades {row['state']}" + (f" with {format_lr(row['flr'])}" if row["flr"] else "")
        for row in rows
    ]
    where = "" if name == "all" else f" of regime {name}" if name != "undecided" else " of no decided regime"
    return f"Norms: nine tenths of the filters{where} lie within {_listed(parts)}."


def sharpness(tables: Tables) -> str:
    """Whether sharper minima have larger test errors at about equal training loss (Fig. 26 of the paper).

    Args:
        tables: A study's tables; ``sharpness`` and ``regimes``.

    Returns:
        A text, empty where no sharpness was measured, or no test error.
    """
    models = at_equal_loss(tables)
    if models["test_error"].count() == 0:
        return ""
    found = flatness_correlation(models)
    missed = models.height - models["converged"].sum()
    caveat = f" The eigenvalue of {missed} of {models.height} models there did not converge." if missed else ""
    lead = f"Sharpness at a training loss of about {models['level'][0]:.2g} (within a factor {FACTOR})"
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
    """From where to where the epochs rise, and where half of the seeds never get there."""
    first, last = part.row(0, named=True), part.row(-1, named=True)
    start = f"{first['epochs']:,.0f} at {format_lr(first['plr'], digits=3)}"
    if part.height == 1:
        text = f"Epochs to convergence are fewest, {start}, at the largest learning rate that converges"
    else:
        end = f"{last['epochs']:,.0f} at {format_lr(last['plr'], digits=3)}"
        text = f"Epochs to convergence grow from {start} to {end}"
    beyond = convergence.filter(pl.col("plr") > last["plr"])["plr"].min()
    if not isinstance(beyond, float):
        return text
    return f"{text}; at {format_lr(beyond, digits=3)} half of the seeds or more never converged"


def _interval(row: dict[str, float | None], *, lr: bool) -> str:
    low, high = row["low"], row["high"]
    if low is None or high is None:
        return " (no interval)"
    ends = [format_lr(end, digits=3) if lr else f"−{end:.2g}" for end in ((low, high) if lr else (high, low))]
    return f" (95 % interval {ends[0]} to {ends[1]})"


def _against(scores: pl.DataFrame, way: str, named: str) -> str:
    """How much better the best ways of two stages are than the best direct ways of one kind."""
    seeds = complete_seeds(scores.filter(way="both"))
    ours, theirs = (
        options(scores.filter(way=kind), "test_accuracy", "plr", "plr2", "flr", seeds=seeds) for kind in ("both", way)
    )
    if not len(ours) or not len(theirs):
        return ""
    gain = best_over_best(ours, theirs)
    text = f"{abs(100 * gain.mean):.2g} points {'more' if gain.mean >= 0 else 'less'} than the best {named}"
    if gain.low is None or gain.high is None:
        return text
    meaning = ", so it may be none" if gain.low < 0 < gain.high else ""
    return f"{text} (95 % interval of the gain over seeds {signed_interval(100 * gain.low, 100 * gain.high)}{meaning})"


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
