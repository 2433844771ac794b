"""What an atlas writes for people: the page, and the figures for papers beside it."""

import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from altair.utils.schemapi import debug_mode

from lratlas.atlas import Atlas
from lratlas.errors import LRAtlasError
from lratlas.report.charts.declared import make_text
from lratlas.report.figures import figure_files, load_converter
from lratlas.report.page import page
from lratlas.report.theme import Drawing
from lratlas.study.artifacts import FIGURES, REPORT, making
from lratlas.study.folder import PYTHON, SPEC
from lratlas.study.progress import standing
from lratlas.study.records import wall_time


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The charts of a study by name, and the reasons for those that cannot be drawn."""

    charts: Mapping[str, Drawing]
    missing: Mapping[str, str]


def draw_charts(atlas: Atlas, *, at_loss: float | None = None) -> Drawn:
    """Draw every chart that the study asks for.

    Args:
        atlas: The study, finished or not.
        at_loss: Also the accuracies at this training loss.

    Raises:
        StudyError: No run reaches the loss.
    """
    charts, missing = dict[str, Drawing](), dict[str, str]()
    # Altair checks every part of a chart against a schema as it is made, which takes longer than all the rest.
    with debug_mode(False):
        for name in atlas.charts:
            try:
                charts[name] = atlas.chart(name)
            except LRAtlasError as error:
                missing[name] = str(error)
        if at_loss is not None:
            charts["accuracy_at_loss"] = atlas.chart("accuracy", at_loss=at_loss)
    return Drawn(charts=charts, missing=missing)


def page_of(atlas: Atlas, found: Drawn, *, live: bool = False) -> str:
    """The page of a study as HTML, with the charts that were drawn of it."""
    return page(
        title=atlas.spec.name,
        task=atlas.plan.task if atlas.plan else "",
        progress=progress(atlas),
        recommended=atlas.recommendation(),
        summary=atlas.summary(),
        charts=found.charts,
        tables=atlas.tables,
        facts=facts(atlas),
        missing=found.missing,
        texts={name: make_text(name, chart) for name, chart in atlas.declared.items()},
        folder=atlas.folder,
        live=live,
    )


def write_files(atlas: Atlas, found: Drawn, *, page: bool = True) -> None:
    """Write each chart into ``figures/`` of the study, as PDF and SVG, and what it shows as CSV.

    PDF and SVG need the extra ``figures``.

    Args:
        atlas: The study.
        found: Its charts.
        page: Write ``report.html`` too.

    Raises:
        StudyError: The study cannot be written.
        MissingLibrary: Only figures are asked for, and the extra ``figures`` is not installed.
    """
    if not page:
        load_converter()
    with making(atlas.store) as write:
        if page:
            write(REPORT, page_of(atlas, found).encode())
        for name, data in figure_files(found.charts):
            write(f"{FIGURES}/{name}", data)
        for name in found.charts:
            if (shown := atlas.chart_data(name)) is not None:
                write(f"{FIGURES}/{name}.csv", shown.write_csv().encode())


def progress(atlas: Atlas) -> str:
    """How far a study is that is not finished, in words; empty for one whose jobs are done."""
    found = standing(atlas.store, atlas.plan, atlas.tables, atlas.spec.refine)
    jobs = f"{found.jobs.done:,} of {found.jobs.total:,} jobs are done"
    words = {
        "finished": "",
        "unfinished": f"unfinished: {jobs}",
        "bisecting": f"bisecting: {jobs}, more will follow",
    }
    return words.get(found.state, f"unfinished: {found.state}")


def facts(atlas: Atlas) -> dict[str, str]:
    """How a study was made, name by name: command, spec, work, time, data fingerprint, versions, machine."""
    runs, plan = atlas.tables["runs"], atlas.plan
    trained = sum(job.work for job in plan.trainings) if plan else 0
    prints = sorted({seed.fingerprint for job in plan.trainings for seed in job.seeds}) if plan else []
    return {
        "Command": _command(atlas),
        "Runs": f"{len(runs):,}, {trained:,} SGD steps planned",
        "Wall time": _wall_time(atlas),
        "Training time": f"{_duration(float(runs['seconds'].sum()))}, summed over processes, pauses not counted",
        "Data fingerprint": ", ".join(prints),
        "Versions": f"{plan.versions} (format {plan.format})" if plan else "",
        "Report": f"lratlas {version('lratlas')}, altair {version('altair')}, Python {platform.python_version()},"
        f" {platform.system()} {platform.machine()}",
        "Spec": atlas.store.read_text(SPEC).strip(),
    }


def _command(atlas: Atlas) -> str:
    if atlas.spec.task.preset == PYTHON:
        return "explore(…) from Python"
    if "://" in atlas.folder:  # a spec is read from a disk alone
        return atlas.store.resume_command
    return f"lratlas explore {shlex.join([f'{atlas.folder}/{SPEC}', '--folder', atlas.folder])}"


def _wall_time(atlas: Atlas) -> str:
    found = wall_time(atlas.store)
    if not found.sessions:
        return "unknown: the study was cut off before it could be written down"
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
