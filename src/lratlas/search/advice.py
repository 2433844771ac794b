"""The advice of a search: an initial LR with a range and a way to finish, or the reason why there is no LR."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import polars as pl

from lratlas import html
from lratlas.errors import SearchError
from lratlas.recommendation import COMPARED as RECOMMENDED
from lratlas.recommendation import Finish, Recommendation
from lratlas.search.choice import INTERVAL, choose, forecast
from lratlas.search.evidence import Evidence, Level, is_tie
from lratlas.search.regimes import (
    Bracket,
    alike,
    convergence,
    divergence,
    diverging,
    learners,
    levels,
    regimes,
    trusted_results,
)
from lratlas.search.rungs import ANNEALED_PART, trainings_spent
from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Counted, Search, in_words
from lratlas.search.wording import failures_in_words, statement_of, warnings_of
from lratlas.tables import SCHEMAS
from lratlas.text import format_lr

_WORDS = {"lr": "LR", "steps": "", "value": "last weights", "averaged": "averaged weights", "regime": "regime"}
"""Columns of the table of the longest segments, and their headings."""
Verdict = Literal["found", "tie", "not_learned", "diverged"]
Schedule = Literal["constant", "linear", "cosine", "own", "custom"]

EVIDENCE = pl.Schema(
    {
        "lr": pl.Float64,
        "seed": pl.Int64,
        "steps": pl.Int64,  # from fresh weights
        "annealed": pl.Boolean,
        "value": pl.Float64,  # validation metric of the last weights
        "averaged": pl.Float64,  # validation metric of the averaged weights
        "error": pl.Float64,  # standard error of the metric that counts, from the validation samples
        "regime": pl.String,  # of the trial, from its training losses so far
        "failure": pl.String,
        "seconds": pl.Float64,
    }
)
COMPARED = pl.Schema(
    {
        "lr": pl.Float64,
        "steps": pl.Int64,
        "seeds": pl.Int64,
        "metric": pl.Float64,  # mean over seeds
        "error": pl.Float64,  # standard error of the difference to the best LR
        "allowed": pl.Float64,  # largest difference at which the LR can still be the best
        "near": pl.Boolean,  # whether the LR is within the noise of the best one
    }
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Advice:
    """Initial LR to use, or the reason why there is none; `print` shows it in sentences.

    Attributes:
        verdict: ``found``: an LR and a range; ``tie``: all LRs are equal within the noise; ``not_learned``: no LR has
            learned anything yet; ``diverged``: all LRs diverged.
        reason: Sentence on why there is no LR; empty if there is one.
        lr: Recommended initial LR; None unless one was found.
        low: Lower end of the good range, the LRs within the noise of the best one. For a tie, the range of all LRs that
            tie; None if nothing was learned.
        high: Upper end of the good range.
        finish: How to finish: ``average`` (the weights of the last tenth of the steps), ``anneal`` (the LR to zero over
            the last fifth) or ``either`` (try both and use the better one: the search was inconclusive); ``constant``
            if the search can do neither, ``schedule`` if the LR has one.
        expected: Expected validation metric of a full training at the LR, with averaged weights; None without an LR.
        expected_low: Lower end of the 90% interval of ``expected``.
        expected_high: Upper end of the interval.
        best_steps: Steps at which the best validation metric so far was seen.
        best: Best validation metric so far.
        direction: Whether a larger (``maximize``) or a smaller (``minimize``) metric is better.
        convergence: Convergence threshold, above which the loss stops falling; None if it was not seen.
        divergence: Divergence threshold, above which nothing is learned; None if it was not seen.
        cost: Training that the search did, in full trainings.
        steps: Length of a full training, in optimizer steps or epochs.
        counted: Unit of all steps here: ``steps`` or ``epochs``.
        warmup: Steps over which the LR grows linearly to its value, included in ``steps``.
        schedule: Schedule under which the LRs were compared; ``custom`` for a function or a list, ``own`` for the
            schedule in the training code.
        limit: Best possible value of the metric; None if it is unknown or was exceeded.
        segment: Longest segment at the LR nearest to the recommended one. The full training can continue from its final
            state. None without an LR, or if trainings cannot be continued.
        checkpoint: File of that state, if the search has it.
        evidence: One row per segment (see `EVIDENCE`), ascending in LR, seed and steps.
        compared: One row per LR of each length at which LRs were compared (see `COMPARED`).
        warnings: Sentences to read before relying on the advice.
    """

    verdict: Verdict
    reason: str
    lr: float | None
    low: float | None
    high: float | None
    finish: Finish
    expected: float | None
    expected_low: float | None
    expected_high: float | None
    best_steps: int
    best: float
    direction: Literal["maximize", "minimize"]
    convergence: Bracket | None
    divergence: Bracket | None
    cost: float
    steps: int
    counted: Counted = "steps"
    warmup: int = 0
    schedule: Schedule = "constant"
    limit: float | None = None
    segment: str | None
    checkpoint: Path | None = None
    evidence: pl.DataFrame
    compared: pl.DataFrame
    warnings: tuple[str, ...]

    @property
    def statement(self) -> str:
        """The advice in a few sentences."""
        return "\n".join(statement_of(self))

    @property
    def recommendation(self) -> Recommendation | None:
        """The LR to use as a study's recommendation; None without an LR."""
        if self.lr is None or self.low is None or self.high is None:
            return None
        tried = self.evidence["lr"].to_list()
        last = self.compared.filter(pl.col("steps") == pl.col("steps").max())
        return Recommendation(
            lr=self.lr,
            low=self.low,
            high=self.high,
            finish=self.finish,
            metric="metric",
            value=self.expected,
            value_low=self.expected_low,
            value_high=self.expected_high,
            at_edge=not min(tried) < self.low <= self.high < max(tried),
            evidence=last.select("lr", "seeds", value="metric", as_good="near").select(RECOMMENDED.names()),
            statement=self.statement,
        )

    @property
    def boundaries(self) -> pl.DataFrame:
        """Table of the regime boundaries in a study's format; without intervals, null if a boundary was not seen."""
        brackets = {"convergence": self.convergence, "subregime": None, "divergence": self.divergence}
        rows = [{"boundary": name} | (each.facts if each else {}) for name, each in brackets.items()]
        return pl.DataFrame(rows, schema=SCHEMAS["boundaries"])

    def length(self, steps: int) -> str:
        """A number of steps or epochs in words, such as ``6,400 steps`` or ``1 epoch``."""
        return in_words(steps, self.counted)

    def lr_at(self, step: int, *, finish: Literal["average", "anneal"] | None = None) -> float:
        """LR of a step of a full training that finishes as advised; steps count from 0.

        Args:
            step: Finished optimizer steps (or epochs), less than ``steps``.
            finish: Way to finish, if the advice is to try both. If None, as advised; annealed only if the advice is
                ``anneal``.

        Returns:
            The advised LR; smaller in the warm-up, and over the last fifth of the steps if it is annealed. Under a
            schedule, the LR that the schedule (with its warm-up) multiplies.

        Raises:
            SearchError: There is no LR.
        """
        if self.lr is None:
            raise SearchError(f"No recommended LR. {self.reason}")
        left = (self.steps - step) / (ANNEALED_PART * self.steps) if (finish or self.finish) == "anneal" else 1.0
        begun = (step + 1) / self.warmup if self.warmup and self.finish != "schedule" else 1.0
        return self.lr * min(1.0, left, begun)

    def longest(self) -> pl.DataFrame:
        """For each LR, the longest row of the evidence with the first seed and no annealed end; ascending in LR."""
        constant = self.evidence.filter(~pl.col("annealed") & (pl.col("seed") == pl.col("seed").min()))
        longest = constant.group_by("lr").agg(pl.all().sort_by("steps").last()).sort("lr")
        return longest.select("lr", "steps", "value", "averaged", "regime")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Advice):
            return NotImplemented
        tables = self.evidence.equals(other.evidence) and self.compared.equals(other.compared)
        return self._values == other._values and tables

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        numbers = {"lr": self.lr, "low": self.low, "high": self.high, "expected": self.expected, "cost": self.cost}
        shown = {name: None if value is None else float(f"{value:.4g}") for name, value in numbers.items()}
        given = ", ".join(f"{name}={value}" for name, value in shown.items())
        return f"Advice(verdict={self.verdict!r}, finish={self.finish!r}, {given})"

    def _repr_html_(self) -> str:
        """The statement, the warnings, and the longest segment of each LR."""
        headline, *lines = self.statement.splitlines()
        longest = self.longest()
        columns = {name: words for name, words in _WORDS.items() if longest[name].count()}
        rows = [[_cell(name, row[name]) for name in columns] for row in longest.to_dicts()]
        header = [self.counted if name == "steps" else words for name, words in columns.items()]
        return html.answer(headline, lines, notes=self.warnings) + html.table(header, rows, numbers=True)

    def __str__(self) -> str:
        """The statement and the warnings, one line each."""
        return "\n".join([self.statement, *(f"Note: {warning}" for warning in self.warnings)])

    @property
    def _values(self) -> tuple[object, ...]:
        """All fields except the tables, whose ``==`` returns a table."""
        return tuple(getattr(self, field.name) for field in fields(self) if field.name not in {"evidence", "compared"})


def advise(search: Search, results: Sequence[SegmentResult]) -> Advice:
    """Derive the advice from the results so far.

    Args:
        search: The settings.
        results: All results, in any order.

    Raises:
        SearchError: There are no results yet, or no LR could be trained and the cause is not divergence.
    """
    # The order in which workers finish must not decide ties.
    results = sorted(
        results, key=lambda each: (each.segment.stop, each.segment.lr, each.segment.seed, each.segment.annealed)
    )
    if not results:
        raise SearchError("No results yet: train and tell() at least one segment first.")
    evidence = Evidence(search, trusted_results(results))
    relied, found, lost = evidence.results, levels(evidence), diverging(evidence)
    if not found and not lost:
        raise SearchError(" ".join(["None of the LRs could be compared.", *failures_in_words(results)]))
    learners_at = {level.steps: learners(evidence, level) for level in found}
    learned = {lr for lrs in learners_at.values() for lr in lrs}
    verdict, reason = _verdict(evidence, found, learned, lost)
    # Lengths at which no LR had learned do not count.
    used = [level for level in found if learners_at[level.steps]] or found
    last = used[-1] if used else None
    choice = choose(evidence, used) if verdict == "found" else None
    nearest = min(last.lrs, key=lambda lr: abs(math.log(lr / choice.lr))) if choice and last else None
    told = regimes(relied, learned=learned, steps_each=search.steps_each)
    good = [each for each in relied if each.failure is None]
    best = max(good, key=lambda each: search.score(each.quality), default=None)
    tie = sorted(lr for level in found for lr in level.lrs) if verdict == "tie" else None
    expected = forecast(evidence, nearest, level=last) if nearest is not None and last else None
    advice = Advice(
        verdict=verdict,
        reason=reason,
        lr=choice.lr if choice else None,
        low=choice.low if choice else tie[0] if tie else None,
        high=choice.high if choice else tie[-1] if tie else None,
        finish=_finish(evidence, last),
        expected=expected.value if expected else None,
        expected_low=expected.low if expected else None,
        expected_high=expected.high if expected else None,
        best_steps=best.segment.stop if best else 0,
        best=search.metric(search.score(best.quality)) if best else math.nan,
        direction=search.direction,
        convergence=convergence(told),
        divergence=divergence(told, above=max(learned, default=0.0) if nearest is None else nearest),
        cost=trainings_spent(search, results),
        steps=search.steps,
        counted=search.counted,
        warmup=search.warmup,
        schedule=search.schedule if isinstance(search.schedule, str) else "custom",
        limit=_limit(Evidence(search, good)),
        segment=_continuation_segment(evidence, nearest),
        evidence=_evidence(results, told),
        compared=_compare_lrs(search, found),
        warnings=(),
    )
    return replace(advice, warnings=tuple(warnings_of(Evidence(search, results), used, advice)))


def _verdict(evidence: Evidence, found: Sequence[Level], learned: set[float], lost: set[float]) -> tuple[Verdict, str]:
    """The verdict, and the reason if it is not ``found``."""
    search, results = evidence.search, evidence.results
    tried = sorted({each.segment.lr for each in results})
    going = [lr for lr in tried if lr not in lost]
    if not found and not set(tried) <= lost:
        reason = next((each.failure.rstrip(".") for each in results if each.failure), "unknown")
        return "diverged", (f"{len(lost)} of {len(tried)} LRs diverged, and the others have no metric: {reason}.")
    if not found or not going:
        return "diverged", _explain_divergence(results, tried)
    length = in_words(found[-1].steps, search.counted)
    if not learned and search.chance is not None:
        moved = f"none {_from_to(going)} beat an untrained model"
        wider = "" if lost else f", or try LRs above {format_lr(going[-1])}"
        return "not_learned", (
            f"No LR learned anything yet: within {length} {moved} ({search.chance:.4g}). Train for longer{wider}."
        )
    if is_tie(found):
        return "tie", _explain_tie(evidence, found, tried)
    if not learned:
        return "not_learned", (
            f"No LR learned anything yet: within {length} none {_from_to(going)} beat the others by more than"
            " the noise. Train for longer, or try other LRs."
        )
    return "found", ""


def _explain_divergence(results: Sequence[SegmentResult], tried: Sequence[float]) -> str:
    first = [each.losses[0] for each in results if each.losses and not each.segment.start]
    if first and not any(math.isfinite(loss) for loss in first):
        return (
            f"The training loss is not finite from the start, at each of {len(tried)} LRs from {format_lr(tried[0])} to"
            f" {format_lr(tried[-1])}: look for NaN or infinity in the data, the model and the loss."
        )
    return (
        f"All {len(tried)} LRs diverged, even {format_lr(tried[0])}: try LRs below {format_lr(tried[0] / 10)},"
        " or look for an error in the training code."
    )


def _explain_tie(evidence: Evidence, found: Sequence[Level], tried: Sequence[float]) -> str:
    search = evidence.search
    span = f"The LRs {_from_to(tried)} tie"
    if len(tried) == 1:
        return f"Only LR {format_lr(tried[0])} was tried: at least two LRs are needed for a comparison."
    if all(alike(evidence.results, level.steps) for level in found):
        if len({score for level in found for score in level.scores}) > 1:
            return f"{span}: all have identical metrics, so the LR has no effect. Is it passed to the optimizer?"
        return (
            f"{span}: the metric is always {search.metric(found[-1].scores[0]):.4g}. Either the LR has no effect"
            " (is it passed to the optimizer?), or the search needs larger LRs or a longer training."
        )
    width = max(found[-1].allowance(at) for at in range(len(found[-1].lrs)))
    more = (
        "more validation samples, a longer training or a larger budget"
        if evidence.search.samples
        else "a longer training"
    )
    return (
        f"{span}: their differences are below {width:.2g}, the noise from the seed and the validation set. Try {more}."
    )


def _finish(evidence: Evidence, last: Level | None) -> Finish:
    """The way to finish that was better by more than the noise if both were tried, else ``either``."""
    search, results = evidence.search, evidence.results
    if search.schedule != "constant":
        return "schedule"
    averages = any(each.averaged is not None for each in results)
    ends = [each for each in results if each.segment.annealed and each.failure is None]
    if not averages or not search.anneals:
        return "average" if averages else "anneal" if ends or search.anneals else "constant"
    gains = list[float]()
    for end in ends:
        of = evidence.trial(end.segment.lr, seed=end.segment.seed)
        same = [each for each in of if each.segment.stop == end.segment.stop and each.failure is None]
        gains += [search.score(end.value) - search.score(each.quality) for each in same]
    if not gains or last is None:
        return "either"
    gain, error = sum(gains) / len(gains), last.noise * math.sqrt(2 / len(gains))
    return "either" if abs(gain) <= INTERVAL * error else "anneal" if gain > 0 else "average"


def _limit(evidence: Evidence) -> float | None:
    """Best possible value of the metric; None if it is unknown or a metric exceeds it."""
    limit, score = evidence.limit, evidence.search.score
    exceeded = limit is not None and any(score(each) > score(limit) for each in evidence.metrics)
    return None if exceeded else limit


def _continuation_segment(evidence: Evidence, lr: float | None) -> str | None:
    """The longest segment at an LR; a full training can continue from it."""
    if lr is None or not evidence.search.continues:
        return None
    of = [each for each in evidence.trial(lr) if each.failure is None]
    return of[-1].segment.name if of else None


def _evidence(results: Sequence[SegmentResult], told: dict[tuple[float, int], str]) -> pl.DataFrame:
    rows = [
        {
            "lr": each.segment.lr,
            "seed": each.segment.seed,
            "steps": each.segment.stop,
            "annealed": each.segment.annealed,
            "value": each.value,
            "averaged": each.averaged,
            "error": each.error,
            "regime": told.get((each.segment.lr, each.segment.seed), "undecided"),
            "failure": each.failure,
            "seconds": each.seconds,
        }
        for each in results
    ]
    return pl.DataFrame(rows, schema=EVIDENCE).sort("lr", "seed", "steps", "annealed")


def _compare_lrs(search: Search, found: Sequence[Level]) -> pl.DataFrame:
    rows = [
        {
            "lr": lr,
            "steps": level.steps,
            "seeds": level.seeds[at],
            "metric": search.metric(level.scores[at]),
            "error": level.error(at),
            "allowed": level.allowance(at),
            "near": level.is_near(at),
        }
        for level in found
        for at, lr in enumerate(level.lrs)
    ]
    return pl.DataFrame(rows, schema=COMPARED).sort("steps", "lr")


def _cell(name: str, value: object) -> str:
    if value is None:
        return "–"
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return format_lr(value) if name == "lr" else f"{value:.4g}"


def _from_to(lrs: Sequence[float]) -> str:
    return f"from {format_lr(lrs[0])} to {format_lr(lrs[-1])}"
