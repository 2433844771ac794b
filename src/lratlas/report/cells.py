"""Rows of tables as the page writes them: boundaries, verdicts and regimes, numbers rounded for people."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from lratlas.analysis.claims import CLAIMS
from lratlas.analysis.regimes import undecided
from lratlas.report.rows import lr_text

Cell = Callable[[Any], str]

_BOUNDARIES = {
    "convergence": "1 | 2, the convergence threshold",
    "subregime": "2A | 2B",
    "divergence": "2 | 3, divergence",
}


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _short(number: float) -> str:
    return lr_text(number) if 0 < abs(number) < 1e-3 else f"{number:.3g}"


# Heading and format of each column of the table of regimes.
EVIDENCE: Mapping[str, tuple[str, Cell]] = {
    "plr": ("PLR", lr_text),
    "regime": ("regime", str),
    "reason": ("why undecided", str),
    "seeds": ("seeds", str),
    "train_accuracy": ("train accuracy", _percent),
    "chance_accuracy": ("chance", _percent),
    "above_chance_p": ("above chance, p", _short),
    "fitted": ("seeds fitted", _percent),
    "train_loss": ("train loss", _short),
    "falling": ("loss falls", _percent),
    "trend_p": ("trend, p", _short),
    "test_accuracy": ("test accuracy", _percent),
    "barrier": ("test barrier", _short),
    "spread": ("spread of accuracy", _percent),
    "flr_spread": ("spread over FLRs", _percent),
    "diverged": ("not finite", _percent),
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One claim as the page shows it.

    Attributes:
        claim: Its name in the table of claims.
        heading: The claim as the paper has it.
        verdict: supported, contradicted, inconclusive or not measured.
        statement: The claim in a sentence.
    """

    claim: str
    heading: str
    verdict: str
    statement: str


def verdict_entries(claims: pl.DataFrame) -> list[Entry]:
    """The claims in the order of the table."""
    return [
        Entry(
            claim=row["claim"],
            heading=CLAIMS[row["claim"]].title,
            verdict=row["verdict"],
            statement=row["statement"],
        )
        for row in claims.to_dicts()
    ]


def boundary_rows(boundaries: pl.DataFrame, regimes: pl.DataFrame) -> list[list[str]]:
    """Name, value, bracket and interval of each boundary in words.

    Args:
        boundaries: The table of boundaries.
        regimes: The table of regimes; where it has undecided PLRs, one that was not found may be there all the same.
    """
    unclear = not undecided(regimes).is_empty()
    return [
        [
            _BOUNDARIES[row["boundary"]],
            _cell(row["value"], lr_text, absent=_absent(row["boundary"], unclear=unclear)),
            _between(row["below"], row["above"]),
            _between(row["low"], row["high"]),
        ]
        for row in boundaries.to_dicts()
    ]


def regime_rows(regimes: pl.DataFrame) -> list[dict[str, Any]]:
    """For each PLR its regime, and the cells of its row in the order of `EVIDENCE`."""
    return [
        {"regime": row["regime"], "cells": [_cell(row[name], form) for name, (_, form) in EVIDENCE.items()]}
        for row in regimes.sort("plr").to_dicts()
    ]


def _cell(value: Any, form: Cell, *, absent: str = "–") -> str:
    return absent if value is None else form(value)


def _absent(boundary: str, *, unclear: bool) -> str:
    """Why there is none; an undecided PLR is known not to diverge."""
    return "cannot be told" if unclear and boundary != "divergence" else "not reached"


def _between(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{lr_text(low)} to {lr_text(high)}"
