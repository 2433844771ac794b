"""The atlas of a study, finished or running: tables, boundaries, words, charts; and how to make one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lratlas.analysis.boundaries import boundaries
from lratlas.analysis.claims import claims
from lratlas.analysis.power_law import power_law
from lratlas.analysis.recommendation import Recommendation, recommendation
from lratlas.analysis.regimes import regimes, run_evidence
from lratlas.analysis.sparsity import sparsity
from lratlas.analysis.summary import summary
from lratlas.config.sections import Spec
from lratlas.errors import StudyError, meant
from lratlas.measure.base import ORDER, Chart
from lratlas.measure.builtin import MEASUREMENTS
from lratlas.study.artifacts import is_whole
from lratlas.study.description import Description
from lratlas.study.folder import PYTHON
from lratlas.study.plan import Plan, read_stored_plan, read_stored_spec
from lratlas.study.progress import next_plr
from lratlas.study.store import Store
from lratlas.tables import SCHEMAS, empty, has_accuracy
from lratlas.text import format_lr
from lratlas.thresholds import Thresholds

if TYPE_CHECKING:
    from torch import nn

    from lratlas.report.theme import Drawing
    from lratlas.task import Task

# The stored tables and what their rows are sorted by.
_STORED = {
    "runs": ("seed", "plr", "stage", "plr2", "flr", "count"),
    "traces": ("run", "step"),
    **{measurement.table: measurement.needs.order for measurement in MEASUREMENTS},
}
_ANALYSIS = ("regimes", "boundaries", "sparsity", "power_law", "claims")
_WHOLE = "analysis"


class _Tables(Mapping[str, pl.DataFrame]):
    """Tables by name, each made once, when it is first asked for."""

    def __init__(self, names: Sequence[str], make: Callable[[str], pl.DataFrame]) -> None:
        self._names, self._make = names, make
        self._made = dict[str, pl.DataFrame]()

    def __getitem__(self, name: str) -> pl.DataFrame:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, repr=False)
class Atlas:
    """A study as tables, boundaries, sentences and charts. Made by `explore` or `load`; nothing in it is kept twice.

    Attributes:
        store: The study's folder.
        thresholds: The numbers behind regimes and boundaries; None for those of the study's spec.
    """

    store: Store
    thresholds: Thresholds | None = None

    def __repr__(self) -> str:
        return f"Atlas({self.folder!r})"

    @property
    def folder(self) -> str:
        """Where the study is."""
        return self.store.url

    @cached_property
    def spec(self) -> Spec:
        """What is explored."""
        return read_stored_spec(self.store)

    @cached_property
    def plan(self) -> Plan | None:
        """The jobs, None for a study that was interrupted before it was planned."""
        return read_stored_plan(self.store)

    @cached_property
    def extras(self) -> Mapping[str, Description]:
        """The custom measurements of the study, as it describes them."""
        return self.store.extras

    @cached_property
    def tables(self) -> Mapping[str, pl.DataFrame]:
        """All tables, by name, each read or computed when it is first asked for; those not there yet are empty.

        Asking for one raises:
            DamagedFile: A file of the study was cut short or altered.
            StudyError: The study is of a later format, or cannot be read.
        """
        return _Tables((*SCHEMAS, *self.extras), self._table)

    def _table(self, name: str) -> pl.DataFrame:
        """Read or compute a table."""
        plan = self.plan  # first: it says where a study is of a later format
        if keys := ORDER if name in self.extras else _STORED.get(name):
            return self.store.read_table(name).sort(keys)
        if name == "convergence":
            return _first_fits(self.store.read_table(name), self.tables["runs"])
        if not plan or self.tables["runs"].is_empty():
            return empty(name)
        if name == "sparsity":
            return sparsity(self.tables["features"], chance=plan.chance_accuracy)
        if name == "power_law":
            return power_law(self.tables["convergence"])
        judge = {"regimes": regimes, "boundaries": boundaries, "claims": claims}[name]
        chance, thresholds = plan.chance_loss, self._thresholds
        return judge(self.tables, chance_loss=chance, thresholds=thresholds, evidence=self._evidence)

    @cached_property
    def _evidence(self) -> pl.DataFrame:
        """What regimes, boundaries and claims rest on."""
        assert self.plan is not None
        return run_evidence(self.tables, chance_loss=self.plan.chance_loss, thresholds=self._thresholds)

    @property
    def _thresholds(self) -> Thresholds:
        return self.thresholds or self.spec.thresholds

    def table(self, name: str) -> pl.DataFrame:
        """One table, sorted.

        Raises:
            StudyError: There is no such table.
        """
        known = (*SCHEMAS, *self.extras)
        if name not in known:
            raise StudyError(f"There is no table {name!r}{meant(name, known)}; choose one of {', '.join(known)}.")
        return self.tables[name]

    @property
    def boundaries(self) -> pl.DataFrame:
        """Where the regimes meet: three rows, null where not reached."""
        return self.table("boundaries")

    @property
    def regimes(self) -> pl.DataFrame:
        """The regime of each pre-training LR, with its evidence."""
        return self.table("regimes")

    def summary(self) -> list[str]:
        """What the tables say, in plain sentences."""
        if self.tables["regimes"].is_empty():
            return ["Nothing is trained yet."]
        return summary(self.tables, elr=self.elr)

    def recommendation(self) -> Recommendation | None:
        """The initial LRs to use, with the score they lead to; None where no model was finished yet."""
        return recommendation(self.tables, elr=self.elr)

    def next_plr(self) -> float | None:
        """The PLR that a bisection trains next; None if it is done, or the spec asks for none.

        Raises:
            StudyError: The boundary does not lie between the PLRs trained so far.
        """
        return next_plr(self.tables, self.spec.refine) if self.spec.refine else None

    def regimes_in_short(self) -> str:
        """The PLRs of each regime, as the ends of their range, and why they are undecided: ``1: 1e-3–1e-2, 2A: …``."""
        parts = [
            f"{name}{f' ({reason})' if reason else ''}: {format_lr(part['plr'].min())}–{format_lr(part['plr'].max())}"  # pyright: ignore[reportArgumentType] - polars' min() is wider
            for (name, reason), part in self.regimes.group_by("regime", "reason", maintain_order=True)
        ]
        return ", ".join(parts)

    @property
    def elr(self) -> bool:
        """Whether LRs are effective ones."""
        return bool(self.plan and self.plan.elr)

    def chart(self, name: str, **options: Any) -> "Drawing":
        """A chart; it shows in a notebook.

        Args:
            name: One of ``charts``: accuracy, last_tenth, loss, traces, convergence, two_stages; geometry, features,
                features_full, bands, norms, sharpness; that of a custom measurement; ticks or band_picture of the data.
            options: Passed to the chart, such as ``at_loss`` for accuracy.

        Raises:
            StudyError: There is no such chart, or the study lacks what it shows.
        """
        from lratlas.report.charts.declared import make_chart
        from lratlas.report.charts.study_charts import CHARTS

        if name == "ticks" and name in self._of_data:
            return self._ticks()
        if name == "band_picture" and name in self._of_data:
            return self._band_picture()
        if name in self.declared:
            return make_chart(self.tables, name, self.declared[name], elr=self.elr)
        if name not in CHARTS:
            known = (*CHARTS, *self.declared)
            raise StudyError(f"There is no chart {name!r}{meant(name, known)}; choose one of {', '.join(known)}.")
        return CHARTS[name](self.tables, elr=self.elr, **options)

    def model(self, run: str, task: "Task | Callable[[int], Task] | None" = None) -> "nn.Module":
        """The trained model of a run, in eval mode.

        Args:
            run: Its id, from the table of runs.
            task: What was explored, for a study that was started from Python.

        Raises:
            StudyError: There is no such run, or its task is not known or no longer the same.
        """
        from lratlas.config.tasks import tasks_from, tasks_of
        from lratlas.training.fingerprint import fingerprint
        from lratlas.training.prepared import make_model

        numbers = self.tables["runs"].filter(run=run)["seed"].to_list()
        if not numbers or self.plan is None:
            raise StudyError(f"There is no finished run {run!r}; the table of runs has their ids.")
        if task is None and self.spec.task.preset == PYTHON:
            raise StudyError(
                f"{self.folder} was started from Python with a task of its own; pass it: model(run, task)."
            )
        known = tasks_from(self.spec.task) if task is None else tasks_of(task)
        seed = next(seed for job in self.plan.trainings for seed in job.seeds if seed.seed == numbers[0])
        made = known.of(seed.seed)
        if fingerprint(made) != seed.fingerprint:
            raise StudyError(
                f"The task of run {run} is not the one that {self.folder} was made with: its model or data have"
                " changed since, or lratlas has. The weights of the run do not fit it."
            )
        model = make_model(made, seed.training_seed).eval()
        saved = self.store.read_weights(self.plan.holders()[run])
        places = (f"{run}/weights/", f"{run}/buffers/")
        values = {name.split("/", 2)[2]: value for name, value in saved.items() if name.startswith(places)}
        model.load_state_dict(model.state_dict() | values)
        return model

    def write_report(self, *, at_loss: float | None = None) -> str:
        """Write the analysis tables, ``report.html`` and ``figures/`` (PDF, SVG, and the data as CSV) into the study.

        PDF and SVG need the extra ``figures``; the page is complete without it.

        Args:
            at_loss: Also show the accuracies at this training loss instead of at the end.

        Returns:
            Where the page is.

        Raises:
            StudyError: The study cannot be written, or no run reaches the loss.
        """
        from lratlas.api.report import draw_charts, write_files

        found = draw_charts(self, at_loss=at_loss)
        for name in _ANALYSIS:
            self.store.write_table(name, _WHOLE, self.tables[name])
        write_files(self, found)
        return f"{self.folder}/report.html"

    @property
    def is_reported(self) -> bool:
        """Whether the report, its figures and the analysis tables are there, as they were written."""
        return is_whole(self.store) and all(_WHOLE in self.store.parts(name) for name in _ANALYSIS)

    def report_html(self, *, at_loss: float | None = None, live: bool = False) -> str:
        """The page that `write_report` writes, as text; nothing is written.

        Args:
            at_loss: Also show the accuracies at this training loss instead of at the end.
            live: The page follows the study: it asks the server that it came from for ``version``, every few seconds,
                and shows itself anew when that text has changed.

        Raises:
            StudyError: No run reaches the loss.
        """
        from lratlas.api.report import draw_charts, page_of

        return page_of(self, draw_charts(self, at_loss=at_loss), live=live)

    @property
    def charts(self) -> tuple[str, ...]:
        """The charts that this study asks for, finished or not, in the order of the report."""
        from lratlas.report.charts.study_charts import CHARTS

        asked = {
            figure.name: self.plan is None or bool(self.plan.measuring(measurement.name))
            for measurement in MEASUREMENTS
            for figure in measurement.needs.figures
        } | {
            "accuracy": has_accuracy(self.tables["runs"]),
            "last_tenth": has_accuracy(self.tables["runs"]),
            "loss": not has_accuracy(self.tables["runs"]),
            "convergence": self.spec.measure.convergence,
            "two_stages": self.spec.second is not None,
        }
        finetune, average = self.spec.finetune, self.spec.average
        several = len(finetune.lrs if finetune else ()) > 1 or len(average.counts if average else ()) > 1
        asked["features_full"] = asked["features"] and several
        return tuple(name for name in (*CHARTS, *self.declared, *self._of_data) if asked.get(name, True))

    def chart_data(self, name: str) -> pl.DataFrame | None:
        """What a chart shows; None where there is no such chart, or another one shows the same."""
        from lratlas.report.charts.declared import make_data
        from lratlas.report.charts.study_data import CHART_DATA

        if name in self.declared:
            return make_data(self.tables, name, self.declared[name])
        return CHART_DATA[name](self.tables) if name in CHART_DATA else None

    @property
    def declared(self) -> Mapping[str, Chart]:
        """The charts of custom measurements."""
        return {name: each.chart for name, each in self.extras.items() if each.chart}

    @property
    def _of_data(self) -> tuple[str, ...]:
        """The charts of the study's data alone."""
        preset = self.spec.task.preset
        return ("ticks",) if preset == "ticks" else ("band_picture",) if preset == "images" else ()

    def _band_picture(self) -> "Drawing":
        from lratlas.config.tasks import tasks_from
        from lratlas.data.parts import leaves
        from lratlas.measure.bands import bands_of_job
        from lratlas.report.charts.pictures import band_picture

        jobs = self.plan.measuring("bands") if self.plan else ()
        measured = sorted({band for job in jobs for band in bands_of_job(job)})
        (images,) = leaves(tasks_from(self.spec.task).of(0).test[0])
        return band_picture(images[0], measured or None)

    def _ticks(self) -> "Drawing":
        from lratlas.config.tasks import tasks_from
        from lratlas.data.shapes import SHAPES
        from lratlas.data.ticks import MARGIN, SHAPE
        from lratlas.report.charts.pictures import feature_points, ticks_chart

        options: dict[str, Any] = dict(self.spec.task.options)
        shape, margin = SHAPES[options.get("shape", SHAPE)], options.get("margin", MARGIN)
        task = tasks_from(self.spec.task).of(0)
        points = feature_points(task.train, task.singles, shape, margin=margin)
        return ticks_chart(points, shape, margin=margin)


def _first_fits(rows: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """Of the rows for each segment of a run the earliest epoch; a run that goes on may still come to it."""
    keys = ["plr", "seed"]
    first = rows.sort(*keys, "epochs", nulls_last=True).unique(keys, keep="first", maintain_order=True)
    ended = runs.filter(stage="pretrain").select(*keys, ended=True)
    known = first.join(ended, on=keys, how="left", maintain_order="left")
    return known.filter(pl.col("epochs").is_not_null() | pl.col("ended")).drop("ended")


def load(folder: str | Path, *, thresholds: Thresholds | None = None) -> Atlas:
    """The atlas of a study on disk, finished or not.

    Args:
        folder: The study folder.
        thresholds: Other numbers than the spec's for regimes and boundaries.

    Raises:
        StudyError: There is no study there.
    """
    return Atlas(Store.open(folder), thresholds)
