"""The output files of a study: the page, and figures for papers."""

import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from altair.utils.schemapi import debug_mode

from lratlas.errors import LRAtlasError, StudyError
from lratlas.report.charts.catalog import TableChart
from lratlas.report.charts.paper import FIGURES
from lratlas.report.figures import figure_files, figure_pdf, figure_png, figure_svg, load_converter
from lratlas.report.page import page
from lratlas.report.theme import Drawing, spec_of
from lratlas.results import Results
from lratlas.study.folder import FIGURES as FIGURES_FOLDER
from lratlas.study.folder import PYTHON, REPORT, SPEC
from lratlas.study.progress import standing
from lratlas.study.records import wall_time
from lratlas.tables import csv_text


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The charts of a study by name, and the reasons for charts that cannot be drawn."""

    charts: Mapping[str, Drawing]
    missing: Mapping[str, str]


def draw_charts(results: Results, *, at_loss: float | None = None) -> Drawn:
    """Draw all charts of a study.

    Args:
        results: The study, finished or not.
        at_loss: Also draw the accuracies at this training loss.

    Raises:
        StudyError: No run reaches the loss.
    """
    charts, missing = dict[str, Drawing](), dict[str, str]()
    # Altair validates every part of a chart against a schema, which takes longer than all other work.
    with debug_mode(False):
        for name in results.charts:
            try:
                charts[name] = results.chart(name)
            except LRAtlasError as error:
                missing[name] = str(error)
        if at_loss is not None:
            charts["accuracy_at_loss"] = results.chart("accuracy", at_loss=at_loss)
    return Drawn(charts=charts, missing=missing)


def page_of(results: Results, found: Drawn, *, live: bool = False) -> str:
    """The page of a study as HTML, with its drawn charts."""
    return page(
        title=results.spec.name,
        task=results.plan.task if results.plan else "",
        progress=progress(results),
        recommended=results.recommendation,
        summary=results.summary,
        charts=found.charts,
        tables=results.tables,
        facts=facts(results),
        missing=found.missing,
        folder=results.folder,
        live=live,
    )


def write_files(results: Results, found: Drawn, *, page: bool = True) -> None:
    """Write each chart to ``figures/`` of the study, as PDF and SVG, and its data as CSV.

    PDF and SVG need the extra ``figures``. The report is removed before the other files are written and written after
    them, so it exists only if all of them do.

    Args:
        results: The study.
        found: Its charts.
        page: Write ``report.html`` too.

    Raises:
        StudyError: The study cannot be written.
        MissingLibrary: Only figures are requested, and the extra ``figures`` is not installed.
    """
    store = results.store
    if page:
        store.remove(REPORT)
    else:
        load_converter()
    for name, data in figure_files(found.charts):
        store.write_bytes(f"{FIGURES_FOLDER}/{name}", data)
    for name in found.charts:
        if (shown := results.chart_data(name)) is not None:
            store.write_text(f"{FIGURES_FOLDER}/{name}.csv", csv_text(shown))
    if page:
        store.write_text(REPORT, page_of(results, found))


def write_paper_figures(results: Results) -> Mapping[str, str]:
    """Write the paper's figures to ``figures/paper/``, as far as the study has the data, as PDF, SVG and PNG.

    Args:
        results: The study.

    Returns:
        For each figure, such as ``Figure 2``, a sentence on why it is left out; empty for written figures.

    Raises:
        StudyError: The study cannot be written.
        MissingLibrary: The extra ``figures`` is not installed.
    """
    load_converter()
    is_ticks, outcome = results.spec.task.preset == "ticks", dict[str, str]()
    for figure in FIGURES:
        number = figure.ticks if is_ticks and figure.ticks else figure.number
        try:
            with debug_mode(False):
                chart = _paper_figure(results, figure.draw)
        except LRAtlasError as error:
            outcome[f"Figure {number}, {figure.shows}"] = str(error)
            continue
        outcome[f"Figure {number}, {figure.shows}"] = ""
        name = f"{FIGURES_FOLDER}/paper/figure-{number:02d}"
        spec = spec_of(chart)  # once for all three
        for end, data in (("pdf", figure_pdf(spec)), ("svg", figure_svg(spec).encode()), ("png", figure_png(spec))):
            results.store.write_bytes(f"{name}.{end}", data)
    return outcome


def _paper_figure(results: Results, draw: TableChart | str) -> Drawing:
    if not isinstance(draw, str):
        return draw(results.tables, elr=results.elr)
    if draw not in results.charts:
        raise StudyError("It needs data that this study does not have.")
    return results.chart(draw)


def progress(results: Results) -> str:
    """The progress of an unfinished study, in words; empty if all its jobs are done."""
    found = standing(results.store, results.plan, results.tables, results.spec.refine)
    jobs = f"{found.jobs.done:,} of {found.jobs.total:,} jobs done"
    words = {
        "finished": "",
        "unfinished": f"unfinished: {jobs}",
        "bisecting": f"bisecting: {jobs}, more to come",
    }
    return words.get(found.state, f"unfinished: {found.state}")


def facts(results: Results) -> dict[str, str]:
    """The provenance of a study, by name: command, spec, work, time, data fingerprint, versions, machine."""
    runs, plan = results.tables["runs"], results.plan
    trained = sum(job.work for job in plan.trainings) if plan else 0
    prints = sorted({seed.fingerprint for job in plan.trainings for seed in job.seeds}) if plan else []
    return {
        "Command": _command(results),
        "Runs": f"{len(runs):,}, {trained:,} SGD steps planned",
        "Wall time": _wall_time(results),
        "Training time": f"{_duration(float(runs['seconds'].sum()))}, summed over processes, without pauses",
        "Data fingerprint": ", ".join(prints),
        "Versions": f"{plan.versions} (format {plan.format})" if plan else "",
        "Report": f"lratlas {version('lratlas')}, altair {version('altair')}, Python {platform.python_version()},"
        f" {platform.system()} {platform.machine()}",
        "Spec": results.store.read_text(SPEC).strip(),
    }


def _command(results: Results) -> str:
    if results.spec.task.preset == PYTHON:
        return "explore(…) from Python"
    if "://" in results.folder:  # a spec is only read from a disk
        return results.store.resume_command
    return f"lratlas explore {shlex.join([f'{results.folder}/{SPEC}', '--folder', results.folder])}"


def _wall_time(results: Results) -> str:
    found = wall_time(results.store)
    if not found.sessions:
        return "unknown: the study stopped before it was recorded"
    return _duration(found.seconds) + (f" in {found.sessions} sessions" if found.sessions > 1 else "")


def _duration(seconds: float) -> str:
    """Seconds in the two largest units.

    >>> _duration(8.3), _duration(162.4), _duration(7325)
    ('8 s', '2 min 42 s', '2 h 2 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
