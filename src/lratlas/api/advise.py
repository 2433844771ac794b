"""The output files of a search: its page, its figure, and the advice as JSON."""

import json
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from altair.utils.schemapi import debug_mode

from lratlas.errors import SearchError
from lratlas.files import write_file
from lratlas.paths import expand_home
from lratlas.recommendation import facts_of
from lratlas.report.charts.advice import advice_chart
from lratlas.report.charts.course import course_chart, courses_data
from lratlas.report.figures import figure_files
from lratlas.report.search_page import advice_page, schedule_text
from lratlas.report.shell import versions_text
from lratlas.report.theme import Drawing
from lratlas.search.advice import Advice
from lratlas.search.finder import Finder
from lratlas.search.rungs import trainings_spent
from lratlas.text import is_finite, replace_nonfinite


def write_advice(advice: Advice, folder: str | Path) -> Path:
    """Write the advice to a folder as JSON for scripts and as a page, and its main chart as SVG and PDF.

    Each file is replaced atomically. SVG and PDF need the extra ``figures``.

    Args:
        advice: The result of a search.
        folder: The folder of the search, or any other; created if missing.

    Returns:
        The path of the page.

    Raises:
        SearchError: A file cannot be written.
    """
    folder = expand_home(folder)
    for name, content in _files(advice):
        try:
            write_file(folder / name, content)
        except OSError as error:
            raise SearchError(f"{folder / name} cannot be written: {error.strerror or error}.") from error
    return folder / "advice.html"


def _files(advice: Advice) -> Iterator[tuple[str, bytes]]:
    """The files by name, the least likely to fail first."""
    yield "advice.json", json.dumps(advice_facts(advice), indent=1, allow_nan=False).encode() + b"\n"
    charts = charts_of(advice)
    yield "advice.html", advice_page(advice, charts, facts=cost_facts(advice)).encode()
    yield from figure_files({"advice": charts["advice"]})


def charts_of(advice: Advice) -> dict[str, Drawing]:
    """The charts of an advice by name: ``advice``, and ``course`` if an LR was trained for more than one share."""
    draw: Mapping[str, Callable[[Advice], Drawing]] = {"advice": advice_chart}
    if courses_data(advice)["went_on"].any():
        draw = {**draw, "course": course_chart}
    # Altair validates every part of a chart against a schema, which takes longer than all other work.
    with debug_mode(False):
        return {name: make(advice) for name, make in draw.items()}


def live_page(folder: str | Path) -> str:
    """The current page of a search, which follows the search through its server.

    Args:
        folder: The folder of the search.

    Raises:
        SearchError: There is no advice yet, or the search is damaged.
    """
    finder = Finder(folder)
    advice, spent = finder.advice(), trainings_spent(finder.search, finder.results)
    progress = "" if finder.finished else f"searching: {spent:.2f} of {finder.search.budget:g} full trainings"
    return advice_page(advice, charts_of(advice), facts=cost_facts(advice), progress=progress, live=True)


def advice_facts(advice: Advice) -> dict[str, Any]:
    """The statement, the recommendation and all fields of an advice as JSON values; None if unknown.

    The tables are lists of row objects; a bracket has ``below``, ``above`` and ``value``.
    """
    record: dict[str, Any] = {each.name: getattr(advice, each.name) for each in fields(advice)}
    brackets = {name: record[name] and record[name].facts for name in ("convergence", "divergence")}
    tables = {name: record[name].to_dicts() for name in ("evidence", "compared")}
    checkpoint = None if advice.checkpoint is None else str(advice.checkpoint)
    facts = {"statement": advice.statement} | record | brackets | tables | {"checkpoint": checkpoint}
    return replace_nonfinite(facts | {"recommendation": facts_of(advice.recommendation)})


def cost_facts(advice: Advice) -> dict[str, str]:
    """The cost of the search and its provenance, by name."""
    lrs, seeds = advice.evidence["lr"].n_unique(), advice.evidence["seed"].n_unique()
    return {
        "Cost": f"{advice.cost:.2f} full trainings of {advice.length(advice.steps)}",
        "Segments": f"{advice.evidence.height}, of {_count_noun(lrs, 'LR')} and {_count_noun(seeds, 'seed')}",
        "Time": f"{advice.evidence['seconds'].sum():,.0f} s, summed over segments",
        **_schedule(advice),
        **_expected_row(advice),
        **_best(advice),
        "Versions": versions_text(),
        "Machine": f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
    }


def _schedule(advice: Advice) -> dict[str, str]:
    if advice.schedule == "constant" and not advice.warmup:
        return {}
    warmup = f", after a warm-up of {advice.length(advice.warmup)}" if advice.warmup else ""
    return {"LR": f"{schedule_text(advice)}{warmup}"}


def _expected_row(advice: Advice) -> dict[str, str]:
    if advice.expected is None:
        return {}
    interval = f"90% interval {advice.expected_low:.4g} to {advice.expected_high:.4g}"
    return {"Expected": f"a validation metric of {advice.expected:.4g} after a full training ({interval})"}


def _best(advice: Advice) -> dict[str, str]:
    if not is_finite(advice.best):
        return {}
    return {"Best so far": f"{advice.best:.4g}, after {advice.length(advice.best_steps)}"}


def _count_noun(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
