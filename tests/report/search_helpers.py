"""Advice to draw: written down row by row, or the result of a search of a toy task."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from lratlas.search.advice import COMPARED, EVIDENCE, Advice, advise
from lratlas.search.rungs import next_segments
from lratlas.search.segments import Segment, SegmentResult
from lratlas.search.settings import make_search

PLATEAU, BREAKS = 3e-2, 0.6  # LRs from which on the toy loss rests, and is not finite


def row(lr: float, steps: int, metric: float | None, **others: object) -> dict[str, object]:
    """A segment at a constant LR, ``metric`` being that of averaged weights."""
    return {
        "lr": lr,
        "seed": 0,
        "steps": steps,
        "annealed": False,
        "averaged": metric,
        "regime": "undecided",
        "seconds": 1.5,
        **others,
    }


def annealed(lr: float, steps: int, metric: float | None, **others: object) -> dict[str, object]:
    """An annealed branch."""
    return row(lr, steps, None, annealed=True, value=metric, **others)


def compared(lr: float, steps: int, metric: float, error: float = 0.01, **others: object) -> dict[str, object]:
    """An LR of a length at which LRs were compared."""
    known = {"lr": lr, "steps": steps, "seeds": 1, "metric": metric, "error": error, "allowed": 1.645 * error}
    return known | {"near": True} | others


def without_lr(verdict: str, reason: str = "A reason.", **others: Any) -> dict[str, Any]:
    """The fields of an advice that found no LR."""
    names = ("lr", "low", "high", "expected", "expected_low", "expected_high", "segment")
    return dict.fromkeys(names) | {"verdict": verdict, "reason": reason} | others


def advice(
    *rows: Mapping[str, object],
    more_is_better: bool = True,
    levels: Sequence[Mapping[str, object]] = (),
    **others: Any,
) -> Advice:
    """An advice on these segments of a training of 6,400 steps, and these comparisons."""
    evidence = pl.DataFrame(list(rows), schema=EVIDENCE).sort("lr", "seed", "steps", "annealed")
    seen = evidence.select(pl.coalesce("averaged", "value")).to_series().drop_nulls().to_list() or [0.0]
    best = max(seen) if more_is_better else min(seen)
    all_seen = [each for name in ("value", "averaged") for each in evidence[name].drop_nulls()]
    largest = next((end for end in (1.0, 100.0) if all(each <= end for each in all_seen)), None)
    settings: dict[str, Any] = {
        "verdict": "found",
        "reason": "",
        "lr": 0.1,
        "low": 0.1,
        "high": 0.1,
        "finish": "average",
        "expected": best,
        "expected_low": best,
        "expected_high": best,
        "best_steps": 100,
        "best": best,
        "direction": "maximize" if more_is_better else "minimize",
        "convergence": None,
        "divergence": None,
        "cost": 1.5,
        "steps": 6400,
        "segment": None,
        "limit": None if any(each < 0 for each in all_seen) else largest if more_is_better else 0.0,
        "evidence": evidence,
        "compared": pl.DataFrame(list(levels), schema=COMPARED).sort("steps", "lr"),
        "warnings": (),
    }
    return Advice(**(settings | others))


def searched(*, direction: str = "maximize", steps: int = 6400, **others: object) -> Advice:
    """The result of a search whose metrics have a closed form, best at an LR near 0.1.

    The loss falls to zero below `PLATEAU`, rests above it, and is not finite above `BREAKS`; the smallest LR crashes.
    """
    search = make_search(steps=steps, direction=direction, **others)
    results = list[SegmentResult]()
    while waiting := next_segments(search, results):
        results.append(_result(waiting[0], steps=steps, more_is_better=direction == "maximize"))
    return advise(search, results)


def _result(told: Segment, *, steps: int, more_is_better: bool) -> SegmentResult:
    if told.lr < 1.1e-5:
        return SegmentResult(segment=told, losses=(2.3, 2.3), failure="the command exited with code 1: out of memory")
    if told.lr > BREAKS:
        return SegmentResult(segment=told, losses=(2.3, math.nan), failure="loss 2 of 2 is not finite")
    off = math.log10(told.lr / 0.1)
    quality = 0.9 - 0.2 * (1 - math.exp(-(off**2))) - 0.01 * math.log2(steps / told.stop)
    noise = np.random.default_rng([told.seed, told.stop, round(1e9 * told.lr)]).normal(0, 2e-3, 64)
    done = np.linspace(told.start, told.stop, 64)
    rests = told.lr >= PLATEAU
    losses = (0.4 + 5 * noise) if rests else 2.3 * np.exp(-np.minimum(20.0, done * told.lr))
    value, averaged = quality - (0.05 if rests else 0.0) + noise[0], quality + noise[1]
    if not more_is_better:
        # What is far too large does not diverge here, but is awful.
        value, averaged = (2 - each if told.lr < BREAKS / 2 else 3e7 for each in (value, averaged))
    if told.annealed:
        return SegmentResult(segment=told, value=float(averaged), losses=tuple(losses.tolist()))
    return SegmentResult(segment=told, value=float(value), averaged=float(averaged), losses=tuple(losses.tolist()))
