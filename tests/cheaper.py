"""What costs less, where something else is tested: without processes of its own, or without a page."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from lratlas.atlas import Atlas
from lratlas.config.extras import Extras
from lratlas.config.tasks import Tasks, tasks_from
from lratlas.execute import scheduler
from lratlas.execute.context import Study
from lratlas.execute.train_job import perform
from lratlas.search.driven import find
from lratlas.search.driven.drive import Driven
from lratlas.study.plan import Plan, stored_spec
from lratlas.study.progress import is_done
from lratlas.study.store import Store


@contextmanager
def undrawn() -> Generator[None]:
    """Studies whose page is not drawn."""
    with patch.object(Atlas, "write_report", return_value=""):
        yield


@contextmanager
def unfigured() -> Generator[None]:
    """Pages without figures for papers, which cost more than the rest of a small study or search."""
    with ExitStack() as stack:
        for module in ("lratlas.api.report", "lratlas.api.advise"):
            stack.enter_context(patch(f"{module}.figure_pdf", return_value=b""))
            stack.enter_context(patch(f"{module}.figure_svg", return_value=""))
        yield


@contextmanager
def unpaged() -> Generator[None]:
    """Searches whose page and figures are not drawn."""
    page, charts = "lratlas.api.advise.advice_page", "lratlas.api.advise.charts_of"
    with unfigured(), patch(page, return_value=""), patch(charts, return_value={"advice": None}):
        yield


@contextmanager
def workerless() -> Generator[None]:
    """Studies whose jobs are done in this process, one after the other."""
    with patch.object(scheduler, "execute", _execute):
        yield


@contextmanager
def without_a_process() -> Generator[None]:
    """Searches with a script that is run once more in this process, not by a Python of its own."""

    def driven(**given: Any) -> Driven:
        return replace(Driven(**given), alone=None)

    with patch.object(find, "Driven", driven):
        yield


def _execute(store: Store, plan: Plan, *, tasks: Tasks | None, extras: Extras, **_: object) -> bool:
    spec = stored_spec(store)
    study = Study(store, spec, plan, tasks or tasks_from(spec.task), extras)
    for job in plan.jobs:
        if not is_done(store, job):
            perform(study, job, lambda _: None)
    return True
