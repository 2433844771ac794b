"""The atlas of a study, finished or running: results, models and report. Also `load`, which opens one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lratlas.errors import LRAtlasError, StudyError
from lratlas.results import Results
from lratlas.study.expected import ANALYSIS, WHOLE
from lratlas.study.folder import PYTHON, REPORT
from lratlas.study.store import Store
from lratlas.thresholds import Thresholds

if TYPE_CHECKING:
    from torch import nn

    from lratlas.task import Task


@dataclass(frozen=True, repr=False)
class Atlas(Results):
    """A study as tables, boundaries, sentences, charts, trained models and a report. `explore` and `load` return it.

    In a notebook it displays the answer, the regimes and the main chart.

    Attributes:
        store: The study's folder.
        thresholds: The numbers that define regimes and boundaries; None for the spec's.
    """

    def __repr__(self) -> str:
        try:
            return "\n".join(self._lines())
        except LRAtlasError:  # a damaged study; reading its tables raises the error
            return f"Atlas({self.folder!r})"

    def _lines(self) -> Iterator[str]:
        from lratlas.api.report import progress

        found = progress(self)
        yield f"Atlas of {self.spec.name} in {self.folder}{f' ({found})' if found else ''}"
        advised = self.recommendation
        yield from [advised.statement] if advised else self.summary[:1]
        if len(self.regimes):
            yield f"Regimes: {self.regimes_in_short}"

    def _repr_html_(self) -> str | None:
        from lratlas.api.notebook import study_html

        try:
            return study_html(self)
        except LRAtlasError:
            return None  # the notebook falls back to text

    def model(self, run: str, task: "Task | Callable[[int], Task] | None" = None) -> "nn.Module":
        """The trained model of a run, in eval mode.

        Args:
            run: The run's id, from the table of runs.
            task: The explored task, for a study started from Python.

        Raises:
            StudyError: The run does not exist, its task is unknown or has changed, or its weights are missing.
        """
        from lratlas.config.tasks import tasks_from, tasks_of
        from lratlas.training.fingerprint import fingerprint
        from lratlas.training.prepared import make_model

        name = self.plan.holders().get(run) if self.plan else None
        holder = next((job for job in self.plan.trainings if job.id == name), None) if self.plan else None
        if holder is None or self.tables["runs"].filter(run=run).is_empty():
            raise StudyError(f"There is no finished run {run!r}; the table of runs lists the ids.")
        if task is None and self.spec.task.preset == PYTHON:
            raise StudyError(f"{self.folder} was started from Python with a custom task; pass it: model(run, task).")
        known = tasks_from(self.spec.task) if task is None else tasks_of(task)
        seed = holder.seed_of(run)
        made = known.of(seed.seed)
        if fingerprint(made) != seed.fingerprint:
            raise StudyError(
                f"The weights of run {run} do not fit the task: its model or data, or lratlas, changed since"
                f" {self.folder} was trained."
            )
        model = make_model(made, seed.training_seed).eval()
        saved = self.store.read_weights(holder.id)
        places = (f"{run}/weights/", f"{run}/buffers/")
        values = {name.split("/", 2)[2]: value for name, value in saved.items() if name.startswith(places)}
        known = model.state_dict()
        # Parameters that are not trained, such as a frozen head, are not stored: they follow from the seed.
        if not values or any(name not in known or known[name].shape != value.shape for name, value in values.items()):
            raise StudyError(
                f"checkpoints/{holder.id}.safetensors in {self.folder} has no weights of run {run}; to compute them"
                f" again, {self.store.how_to_continue()}."
            )
        model.load_state_dict(known | values)
        return model

    def write_report(self, *, at_loss: float | None = None) -> str:
        """Write the analysis tables, ``report.html`` and ``figures/`` (PDF, SVG, and the data as CSV) into the study.

        PDF and SVG need the extra ``figures``; the page is complete without it.

        Args:
            at_loss: Also show the accuracies at this training loss instead of at the end.

        Returns:
            The path of the page.

        Raises:
            StudyError: The study cannot be written, or no run reaches the loss.
        """
        from lratlas.api.report import draw_charts, write_files  # draws with Altair, which takes long to import

        found = draw_charts(self, at_loss=at_loss)
        for name in ANALYSIS:
            self.store.write_table(name, WHOLE, self.tables[name], source=self.plan.spec_sha256 if self.plan else "")
        write_files(self, found)
        return f"{self.folder}/report.html"

    @property
    def is_reported(self) -> bool:
        """Whether the report and the analysis tables exist."""
        return self.store.exists(REPORT) and all(WHOLE in self.store.parts(name) for name in ANALYSIS)

    def report_html(self, *, at_loss: float | None = None, live: bool = False) -> str:
        """The page of `write_report` as text; writes nothing.

        Args:
            at_loss: Also show the accuracies at this training loss instead of at the end.
            live: The page follows the study: every few seconds it requests ``version`` from its server, and it reloads
                when that text has changed.

        Raises:
            StudyError: No run reaches the loss.
        """
        from lratlas.api.report import draw_charts, page_of

        return page_of(self, draw_charts(self, at_loss=at_loss), live=live)


def load(folder: str | Path, *, thresholds: Thresholds | None = None) -> Atlas:
    """Open the atlas of a study on disk, finished or not.

    Args:
        folder: The study folder.
        thresholds: Numbers for regimes and boundaries that replace the spec's.

    Raises:
        StudyError: The folder contains no study.
    """
    return Atlas(Store.open(folder), thresholds)
