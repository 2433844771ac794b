"""The results of a study, finished or running: tables, regimes, boundaries, sentences and charts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from lratlas.analysis.boundaries import boundaries
from lratlas.analysis.claims import claims
from lratlas.analysis.claims.evidence import lr_range
from lratlas.analysis.power_law import power_law
from lratlas.analysis.recommendation import recommend
from lratlas.analysis.regimes import regimes, run_evidence
from lratlas.analysis.sparsity import sparsity
from lratlas.analysis.summary import summary
from lratlas.config.sections import Spec
from lratlas.errors import StudyError, meant
from lratlas.measure.base import ORDER, Chart
from lratlas.measure.builtin import MEASUREMENTS
from lratlas.recommendation import Recommendation
from lratlas.study.description import Description
from lratlas.study.plan import Plan, read_stored_plan, read_stored_spec
from lratlas.study.progress import next_plr
from lratlas.study.store import Store
from lratlas.tables import SCHEMAS, empty, has_accuracy
from lratlas.thresholds import Thresholds

if TYPE_CHECKING:
    from lratlas.report.theme import Drawing
    from lratlas.training.prepared import Prepared

# The stored tables and their sort keys.
_STORED = {
    "runs": ("seed", "plr", "stage", "plr2", "flr", "count"),
    "traces": ("run", "step"),
    **{measurement.table: measurement.needs.order for measurement in MEASUREMENTS},
}


class _Tables(Mapping[str, pl.DataFrame]):
    """Tables by name, each computed once, on first access."""

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
class Results:
    """A study as tables, boundaries, sentences and charts; each is computed once, on first access.

    Attributes:
        store: The study's folder.
        thresholds: The numbers that define regimes and boundaries; None for the spec's.
    """

    store: Store
    thresholds: Thresholds | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.folder!r})"

    @property
    def folder(self) -> str:
        """The study's folder."""
        return self.store.url

    @cached_property
    def spec(self) -> Spec:
        """The spec of the study."""
        return read_stored_spec(self.store)

    @cached_property
    def plan(self) -> Plan | None:
        """The jobs; None for a study that was interrupted before it was planned."""
        return read_stored_plan(self.store)

    @cached_property
    def extras(self) -> Mapping[str, Description]:
        """The custom measurements of the study, with their descriptions."""
        return self.store.extras

    @cached_property
    def tables(self) -> Mapping[str, pl.DataFrame]:
        """All tables by name, each read or computed on first access; tables that do not exist yet are empty.

        Accessing one raises:
            DamagedFile: A file of the study is truncated or altered.
            StudyError: The study has a later format, or cannot be read.
        """
        return _Tables((*SCHEMAS, *self.extras), self._table)

    def _table(self, name: str) -> pl.DataFrame:
        """Read or compute a table."""
        plan = self.plan  # first, since it raises if the study has a later format
        if keys := ORDER if name in self.extras else _STORED.get(name):
            rows = self.store.read_table(name)
            if plan and "run" in rows.columns:  # part files of another study may have been copied here
                rows = rows.filter(pl.col("run").is_null() | pl.col("run").is_in(plan.holders().keys()))
            return rows.sort(keys)
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
        """The evidence for regimes, boundaries and claims."""
        assert self.plan is not None
        return run_evidence(self.tables, chance_loss=self.plan.chance_loss, thresholds=self._thresholds)

    @property
    def _thresholds(self) -> Thresholds:
        return self.thresholds or self.spec.thresholds

    def table(self, name: str) -> pl.DataFrame:
        """One table, sorted.

        Raises:
            StudyError: The table does not exist.
        """
        known = (*SCHEMAS, *self.extras)
        if name not in known:
            raise StudyError(f"There is no table {name!r}{meant(name, known)}; choose one of {', '.join(known)}.")
        return self.tables[name]

    @property
    def boundaries(self) -> pl.DataFrame:
        """The boundaries between the regimes: three rows, null if not reached."""
        return self.table("boundaries")

    @property
    def regimes(self) -> pl.DataFrame:
        """The regime of each pre-training LR, with its evidence."""
        return self.table("regimes")

    @property
    def summary(self) -> list[str]:
        """The findings in plain sentences."""
        if self.tables["regimes"].is_empty():
            return ["Nothing is trained yet."]
        return summary(self.tables, elr=self.elr)

    @property
    def recommendation(self) -> Recommendation | None:
        """The initial LR to use, with its score; None if no model is finished yet."""
        return recommend(self.tables, elr=self.elr)

    @property
    def next_plr(self) -> float | None:
        """The PLR that a bisection trains next; None if the bisection is done or the spec has none.

        Raises:
            StudyError: The boundary is not between the PLRs trained so far.
        """
        return next_plr(self.tables, self.spec.refine) if self.spec.refine else None

    @property
    def regimes_in_short(self) -> str:
        """The PLR range of each regime, with the reason for undecided ones: ``1: 1e-3 to 1e-2, 2A: …``."""
        parts = [
            f"{name}{f' ({reason})' if reason else ''}: {lr_range(part['plr'].sort().to_list())}"
            for (name, reason), part in self.regimes.group_by("regime", "reason", maintain_order=True)
        ]
        return ", ".join(parts)

    @property
    def elr(self) -> bool:
        """Whether LRs are effective ones."""
        return bool(self.plan and self.plan.elr)

    def chart(self, name: str, **options: Any) -> "Drawing":
        """A chart; a notebook displays it.

        Args:
            name: One of ``charts``: accuracy, last_tenth, loss, traces, convergence, two_stages; geometry, features,
                features_full, bands, norms, sharpness; a custom measurement's chart; ticks or band_picture of the data.
            options: Passed to the chart, such as ``at_loss`` for accuracy.

        Raises:
            StudyError: The chart does not exist, or the study lacks its data.
        """
        from lratlas.report.charts.catalog import CHARTS
        from lratlas.report.charts.declared import make_chart

        if name == "ticks" and name in self._of_data:
            return self._ticks()
        if name == "band_picture" and name in self._of_data:
            return self._band_picture()
        if name in self.declared:
            return make_chart(self.tables, name, self.declared[name], elr=self.elr)
        if name in self.extras:
            raise StudyError(f"The measurement {name} has no chart; its table is `table({name!r})`.")
        if name not in CHARTS:
            known = (*CHARTS, *self.declared)
            raise StudyError(f"There is no chart {name!r}{meant(name, known)}; choose one of {', '.join(known)}.")
        return CHARTS[name](self.tables, elr=self.elr, **options)

    @property
    def charts(self) -> tuple[str, ...]:
        """The charts of this study, finished or not, in the order of the report."""
        from lratlas.report.charts.catalog import CHARTS

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
        """The data of a chart; None if the chart does not exist or another chart shows the same data."""
        from lratlas.report.charts.catalog import CHART_DATA
        from lratlas.report.charts.declared import make_data

        if name in self.declared:
            return make_data(self.tables, name, self.declared[name])
        return CHART_DATA[name](self.tables) if name in CHART_DATA else None

    @property
    def declared(self) -> Mapping[str, Chart]:
        """The charts of custom measurements."""
        return {name: each.chart for name, each in self.extras.items() if each.chart}

    @property
    def _of_data(self) -> tuple[str, ...]:
        """The charts that show only the study's data set."""
        preset = self.spec.task.preset
        return ("ticks",) if preset == "ticks" else ("band_picture",) if preset == "images" else ()

    @property
    def _data(self) -> "Prepared":
        """A task of the study's preset with its data, without the code that the spec names: reading must not run it."""
        from lratlas.config.tasks import tasks_from

        return tasks_from(self.spec.task.model_copy(update={"loss": None, "rule": None})).of(0)

    def _band_picture(self) -> "Drawing":
        from lratlas.data.parts import leaves
        from lratlas.measure.bands import bands_of_job
        from lratlas.report.charts.pictures import band_picture

        jobs = self.plan.measuring("bands") if self.plan else ()
        measured = sorted({band for job in jobs for band in bands_of_job(job)})
        (images,) = leaves(self._data.test[0])
        return band_picture(images[0], measured or None)

    def _ticks(self) -> "Drawing":
        from lratlas.data.shapes import SHAPES
        from lratlas.data.ticks import MARGIN, SHAPE
        from lratlas.report.charts.pictures import feature_points, ticks_chart

        options: dict[str, Any] = dict(self.spec.task.options)
        shape, margin = SHAPES[options.get("shape", SHAPE)], options.get("margin", MARGIN)
        data = self._data
        points = feature_points(data.train, data.singles, shape, margin=margin)
        return ticks_chart(points, shape, margin=margin)


def _first_fits(rows: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """The earliest epoch per run, over the rows of its segments; a run that continues may still reach one."""
    keys = ["plr", "seed"]
    first = rows.sort(*keys, "epochs", nulls_last=True).unique(keys, keep="first", maintain_order=True)
    ended = runs.filter(stage="pretrain").select(*keys, ended=True)
    known = first.join(ended, on=keys, how="left", maintain_order="left")
    return known.filter(pl.col("epochs").is_not_null() | pl.col("ended")).drop("ended")
