"""The page of a study."""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from lratlas.analysis.claims import CLAIMS
from lratlas.analysis.regimes import undecided_plrs
from lratlas.measure.builtin import MEASUREMENTS
from lratlas.recommendation import Recommendation
from lratlas.report.bundle import vega_bundle
from lratlas.report.charts.catalog import ANSWER
from lratlas.report.frames import lr_text, regime_bands
from lratlas.report.shell import BUDGET, DIGITS, downloads, environment, heading, pack_spec, part, policy, text_of
from lratlas.report.theme import REGIME_COLOURS, REGIME_NAMES, Drawing
from lratlas.tables import Tables, table

# Parts narrower than this, in percent of the strip, have no room for a name.
_NAMED = 3.0
# More labels than this would touch on a phone.
_MOST_TICKS = 6
_DARK, _LIGHT = "#111111", "#ffffff"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A range of LRs of one regime: its start and its width, in percent of the strip."""

    regime: str
    start: float
    width: float
    label: str
    ink: str


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A power of ten below the strip, with its place in percent."""

    place: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The recommended LR, and the start and width of the range of equally good LRs, in percent of the strip."""

    at: float
    start: float
    width: float


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The parts, the ticks and the recommended LRs, and their description in words."""

    parts: Sequence[Part]
    ticks: Sequence[Tick]
    mark: Mark | None
    words: str


def strip(tables: Tables, recommended: Recommendation | None = None) -> Strip | None:
    """The regimes from the lowest to the highest PLR on a log scale; None if there are none yet.

    Args:
        tables: The study's tables; only ``regimes`` is read.
        recommended: The PLRs to mark.
    """
    bands = regime_bands(tables).to_dicts()
    if not bands:
        return None
    low, high = math.log10(bands[0]["low"]), math.log10(bands[-1]["high"])

    def place(plr: float) -> float:
        return round(100 * (math.log10(plr) - low) / (high - low), 3)

    parts = [_part(band["regime"], place(band["low"]), place(band["high"])) for band in bands]
    decades = range(math.ceil(low), math.floor(high) + 1)
    every = math.ceil(len(decades) / _MOST_TICKS) or 1
    ticks = [Tick(place=place(10.0**power), label=f"1e{power}") for power in decades if power % every == 0]
    mark = recommended and Mark(
        at=place(recommended.lr),
        start=place(recommended.low),
        width=round(place(recommended.high) - place(recommended.low), 3),
    )
    return Strip(parts=parts, ticks=ticks, mark=mark, words=_words(bands, recommended))


def readable_ink(colour: str) -> str:
    """Black or white, whichever is easier to read on a hexadecimal colour (WCAG's contrast).

    Example:
        >>> readable_ink("#0072B2"), readable_ink("#E69F00")
        ('#ffffff', '#111111')
    """
    ground = _luminance(colour) + 0.05
    on_dark, on_light = ground / (_luminance(_DARK) + 0.05), (_luminance(_LIGHT) + 0.05) / ground
    return _DARK if on_dark >= on_light else _LIGHT


def _words(bands: Sequence[Mapping[str, Any]], recommended: Recommendation | None) -> str:
    named = "; ".join(f"{band['regime']} from {lr_text(band['low'])} to {lr_text(band['high'])}" for band in bands)
    words = f"Regimes along the pre-training learning rate: {named}."
    if recommended is None:
        return words
    ends = " to ".join(dict.fromkeys((lr_text(recommended.low), lr_text(recommended.high))))
    return f"{words} Recommended: {ends}."


def _part(regime: str, start: float, end: float) -> Part:
    width = round(end - start, 3)
    name = "?" if regime == "undecided" else regime
    label = name if width >= _NAMED else ""
    if width >= 1.15 * len(REGIME_NAMES[regime]) + _NAMED:
        label = f"{name} {REGIME_NAMES[regime]}"
    return Part(regime=regime, start=start, width=width, label=label, ink=readable_ink(REGIME_COLOURS[regime]))


def _luminance(colour: str) -> float:
    """Relative luminance of sRGB, from 0 to 1."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


REGIMES: Mapping[str, str] = {
    "1": "convergence: the training loss falls to nearly zero",
    "2A": "chaotic equilibrium, lower part: the loss stays on a noisy plateau; fine-tuned and averaged "
    "models from there are in one basin",
    "2B": "chaotic equilibrium, upper part: fine-tuned models from there are in different basins",
    "2": "chaotic equilibrium: the loss stays on a noisy plateau",
    "3": "divergence: predictions are no better than chance",
    "undecided": "unclear; the table of regimes gives the reason for each PLR",
}

VERDICTS: Mapping[str, str] = {
    "supported": "the runs agree, and the 95% interval over seeds excludes the opposite",
    "contradicted": "the runs show the opposite, and the 95% interval excludes agreement",
    "inconclusive": "the seeds or the grid are insufficient; the sentence says what would be enough",
}

TABLES: Mapping[str, str] = {
    "runs": "every run: stage, learning rates, seed, losses and accuracies at its end",
    "traces": "losses, accuracies and norms during training, run by run",
    "regimes": "the regime of each PLR and the evidence for it",
    "boundaries": "the boundaries between regimes",
    "sparsity": "how unevenly features were learned",
    "convergence": "epochs to convergence, seed by seed",
    "power_law": "the power law of their growth near the threshold",
    "claims": "the verdicts on the paper's claims",
    **{measurement.table: measurement.needs.words for measurement in MEASUREMENTS},
}

Cell = Callable[[Any], str]

_BOUNDARIES = {
    "convergence": "1 | 2, the convergence threshold",
    "subregime": "2A | 2B",
    "divergence": "2 | 3, divergence",
}


def _percent(share: float) -> str:
    return f"{share:.1%}"


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
    """One claim on the page.

    Attributes:
        claim: Its name in the table of claims.
        heading: The claim as stated in the paper.
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
        regimes: The table of regimes; if it has undecided PLRs, a boundary that was not found may still exist.
    """
    unclear = not undecided_plrs(regimes).is_empty()
    return [
        [
            _BOUNDARIES[row["boundary"]],
            _cell(row["value"], lr_text, absent=_describe_absent(row["boundary"], unclear=unclear)),
            _between(row["below"], row["above"]),
            _between(row["low"], row["high"]),
        ]
        for row in boundaries.to_dicts()
    ]


def regime_rows(regimes: pl.DataFrame) -> list[dict[str, Any]]:
    """The regime of each PLR, and the cells of its row in the order of `EVIDENCE`."""
    return [
        {"regime": row["regime"], "cells": [_cell(row[name], form) for name, (_, form) in EVIDENCE.items()]}
        for row in regimes.sort("plr").to_dicts()
    ]


def _cell(value: Any, form: Cell, *, absent: str = "–") -> str:
    return absent if value is None else form(value)


def _describe_absent(boundary: str, *, unclear: bool) -> str:
    """The reason for a missing boundary; an undecided PLR is known not to diverge."""
    return "unclear" if unclear and boundary != "divergence" else "not reached"


def _between(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{lr_text(low)} to {lr_text(high)}"


def page(
    *,
    title: str,
    task: str = "",
    progress: str = "",
    recommended: Recommendation | None = None,
    summary: Sequence[str],
    charts: Mapping[str, Drawing],
    tables: Tables,
    facts: Mapping[str, str],
    missing: Mapping[str, str] | None = None,
    folder: str = "FOLDER",
    live: bool = False,
) -> str:
    """The whole report as one HTML text: answer, verdicts, charts, regimes, tables, and provenance.

    The file contains everything, scripts included, and a content policy forbids all requests and all other scripts.
    All text is escaped, never interpreted as HTML.

    Args:
        title: The heading of the page.
        task: The model and data, in a line below the heading.
        progress: The progress of an unfinished study; empty for a finished one.
        recommended: The PLRs to use; None if unknown.
        summary: The findings of the study, in sentences.
        charts: Charts by name, in the order of the page.
        tables: The study's tables, any of them empty; the page offers them as CSV, as far as they fit.
        facts: The provenance of the study, by name (spec, versions, command, wall time, data fingerprint).
        missing: The reasons for charts that could not be drawn, by name.
        folder: The study's folder, for the command that prints a table in full precision.
        live: The page follows the study through its server, the only one that it may contact.
    """
    # live.js saves the original page, so it runs before any drawing.
    scripts = [vega_bundle(), *([part("live.js")] if live else []), part("report.js")]
    regimes = table(tables, "regimes")
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            task="" if task == title else task,
            progress=progress,
            advice=recommended.statement if recommended else "",
            summary=summary,
            strip=strip(tables, recommended),
            regime_words={name: REGIMES[name] for name in REGIMES if name in set(regimes["regime"])},
            boundaries=boundary_rows(table(tables, "boundaries"), table(tables, "regimes")),
            verdicts=verdict_entries(table(tables, "claims")),
            verdict_words=VERDICTS,
            figures={name: text_of(name, chart) for name, chart in charts.items()},
            first=next((name for name in charts if name in ANSWER), ""),
            specs={name: pack_spec(chart) for name, chart in charts.items()},
            missing={heading(name): reason for name, reason in (missing or {}).items()},
            evidence=[heading for heading, _ in EVIDENCE.values()],
            regimes=regime_rows(regimes),
            downloads=downloads(tables),
            table_words=TABLES,
            digits=DIGITS,
            budget=BUDGET // 1_000_000,
            command=f"lratlas show {shlex.quote(folder)} TABLE --format csv",
            facts=facts,
            colours=REGIME_COLOURS,
            style=part("report.css"),
            scripts=scripts,
            policy=policy(scripts, live=live),
        )
    )
