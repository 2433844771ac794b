"""Whether the range that a method calls good holds the LRs that are good, and no others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.advice.choices import TIE, Choice
from benchmarks.advice.resampling import Estimate, Replicated, Resamples, combined, known_mean, resamples
from benchmarks.advice.scoring import best_of, kept_on_grid, points
from benchmarks.advice.surface import ABOVE, Surface, Values

NEAR = 1.0
"""Points to the best LR within which an LR of the grid is good."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How a method's ranges agree with the LRs that are good.

    Attributes:
        method: Its name.
        problem: Name of the problem; None for the mean over problems.
        searches: How many ended with a range.
        without: How many did not: they advise no LR.
        found: The share of the good LRs that are in the range; None without a range.
        right: The share of the LRs in the range that are good; None where no range holds an LR of the grid.
    """

    method: str
    problem: str | None
    searches: int
    without: int
    found: Estimate | None
    right: Estimate | None


def coverages(choices: Iterable[Choice], surfaces: Mapping[str, Surface]) -> list[Coverage]:
    """The coverage of each method on each problem and then over all problems, which count alike."""
    by_method = dict[str, dict[str, list[Choice]]]()
    for choice in choices:
        if choice.problem in surfaces:
            by_method.setdefault(choice.method, {}).setdefault(choice.problem, []).append(choice)
    return [each for method, own in sorted(by_method.items()) for each in _of_method(method, own, surfaces)]


def has_range(choice: Choice) -> bool:
    """Whether a choice comes with a range: where LRs tie, that is the range of all that tie."""
    return choice.low is not None and choice.high is not None and (choice.lr is not None or choice.verdict == TIE)


def _of_method(method: str, own: Mapping[str, Sequence[Choice]], surfaces: Mapping[str, Surface]) -> list[Coverage]:
    rows, shares = list[Coverage](), list[tuple[Replicated, Replicated]]()
    for problem, choices in sorted(own.items()):
        ranges = [choice for choice in choices if has_range(choice)]
        each = [_shares(surfaces[problem], ranges)] if ranges else []
        rows.append(_coverage(method, problem, each, searches=len(ranges), without=len(choices) - len(ranges)))
        shares += each
    searches, without = sum(row.searches for row in rows), sum(row.without for row in rows)
    return [*rows, _coverage(method, None, shares, searches=searches, without=without)]


def _coverage(
    method: str,
    problem: str | None,
    shares: Sequence[tuple[Replicated, Replicated]],
    *,
    searches: int,
    without: int,
) -> Coverage:
    """The means of the shares of some problems; None where there are none."""
    found, right = (
        (combined([pair[which] for pair in shares], known_mean).estimate for which in (0, 1))
        if shares
        else (None, None)
    )
    return Coverage(method=method, problem=problem, searches=searches, without=without, found=found, right=right)


def _shares(known: Surface, ranges: Sequence[Choice]) -> tuple[Replicated, Replicated]:
    """The share of the good LRs that are in the range, and of the LRs in the range that are good."""
    tests = kept_on_grid(known).test
    drawn = resamples(known.problem.name, searches=len(ranges), judges=len(tests))
    means = np.concatenate([tests.mean(0)[None], tests[drawn.judges].mean(1)])  # of the sample and each replicate
    near = points(known, best_of(known, means)[:, None], means) <= NEAR
    inside = np.stack([_inside(known, choice) for choice in ranges])
    both, counts = (near[:, None] & inside).sum(-1), inside.sum(-1)  # [1 + replicates, searches] and [searches]
    found = both / near.sum(-1)[:, None]
    right = np.where(counts > 0, both / np.maximum(counts, 1), np.nan)
    return _over_searches(found, drawn), _over_searches(right, drawn)


def _inside(known: Surface, choice: Choice) -> NDArray[np.bool_]:
    """Which LRs of the grid are in the range, [L]."""
    assert choice.low is not None
    assert choice.high is not None
    return (known.lrs >= choice.low / ABOVE) & (known.lrs <= choice.high * ABOVE)


def _over_searches(values: Values, drawn: Resamples) -> Replicated:
    return Replicated(
        whole=float(known_mean(values[0])),
        replicates=known_mean(np.take_along_axis(values[1:], drawn.searches, axis=1)),
    )
