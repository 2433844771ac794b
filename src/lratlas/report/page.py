"""The report of a study: one HTML file that needs no network, the answer first."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined

from lratlas.report.charts import Drawing
from lratlas.report.figures import vega_bundle
from lratlas.report.look import REGIME_COLOURS
from lratlas.report.rows import lr_text
from lratlas.report.texts import TEXTS, Text
from lratlas.tables import Tables, empty

Cell = Callable[[Any], str]

_BOUNDARIES = {
    "convergence": "1 | 2, the convergence threshold",
    "subregime": "2A | 2B",
    "divergence": "2 | 3, divergence",
}


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _short(number: float) -> str:
    return f"{number:.3g}"


# Heading and format of each column of the table of regimes.
_EVIDENCE: Mapping[str, tuple[str, Cell]] = {
    "plr": ("PLR", lr_text),
    "regime": ("regime", str),
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
    "flr_spread": ("spread over FLRs", _percent),
    "diverged": ("not finite", _percent),
}


def page(
    *,
    title: str,
    task: str = "",
    summary: Sequence[str],
    charts: Mapping[str, Drawing],
    tables: Tables,
    facts: Mapping[str, str],
    missing: Mapping[str, str] | None = None,
) -> str:
    """The whole report as one HTML text: summary, boundaries, charts, regimes, and how it was made.

    Everything is inside the file, scripts included, and a content policy forbids any request. Text given here
    is shown as it is, never read as HTML.

    Args:
        title: The heading of the page.
        task: What was trained on which data, in a line below the heading.
        summary: The answer in sentences, one paragraph each.
        charts: Charts by name, in the order in which they are shown.
        tables: The study's tables; ``boundaries`` and ``regimes`` are shown, either may be empty.
        facts: How the study was made, name by name (spec, versions, command, wall time, data fingerprint).
        missing: For charts that could not be drawn, name by name, the reason.
    """
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            task=task,
            summary=summary,
            boundaries=_boundary_rows(tables.get("boundaries", empty("boundaries"))),
            figures={name: _text(name, chart) for name, chart in charts.items()},
            specs=_script_json({name: chart.to_dict() for name, chart in charts.items()}),
            missing=_headings(missing or {}),
            evidence=[heading for heading, _ in _EVIDENCE.values()],
            regimes=_regime_rows(tables.get("regimes", empty("regimes"))),
            facts=facts,
            colours=REGIME_COLOURS,
            bundle=vega_bundle(),
        )
    )


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("lratlas.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _script_json(value: object) -> str:
    """JSON in which no text can end the script element that holds it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _text(name: str, chart: Drawing) -> Text:
    """The words for a chart; one that is not among the known charts is headed by its name."""
    described = chart.description
    alt = described if isinstance(described, str) else name
    return TEXTS.get(name, Text(heading=name.replace("_", " ").replace("-", " ").capitalize(), caption="", alt=alt))


def _headings(missing: Mapping[str, str]) -> dict[str, str]:
    return {TEXTS[name].heading if name in TEXTS else name: reason for name, reason in missing.items()}


def _boundary_rows(boundaries: pl.DataFrame) -> list[list[str]]:
    """Name, value, bracket and interval of each boundary in words."""
    return [
        [
            _BOUNDARIES[row["boundary"]],
            _cell(row["value"], lr_text, absent="not reached"),
            _between(row["below"], row["above"]),
            _between(row["low"], row["high"]),
        ]
        for row in boundaries.to_dicts()
    ]


def _regime_rows(regimes: pl.DataFrame) -> list[dict[str, Any]]:
    """For each PLR its regime, and the cells of its row in the order of the headings."""
    return [
        {"regime": row["regime"], "cells": [_cell(row[name], form) for name, (_, form) in _EVIDENCE.items()]}
        for row in regimes.sort("plr").to_dicts()
    ]


def _cell(value: Any, form: Cell, *, absent: str = "–") -> str:
    return absent if value is None else form(value)


def _between(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{lr_text(low)} to {lr_text(high)}"
