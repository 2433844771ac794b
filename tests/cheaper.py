"""What costs less, where something else is tested: without its own processes, or without a page."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lratlas.atlas import Atlas
from lratlas.execute import scheduler
from lratlas.report import figures
from lratlas.search.driven import find
from lratlas.search.driven.drive import Driven


@contextmanager
def undrawn() -> Generator[None]:
    """Studies whose page is not drawn."""
    with patch.object(Atlas, "write_report", return_value=""):
        yield


@contextmanager
def unfigured() -> Generator[None]:
    """Pages without figures for papers, which cost more than the rest of a small study or search."""
    with (
        patch.object(figures, "spec_of", return_value={}),
        patch.object(figures, "figure_pdf", return_value=b""),
        patch.object(figures, "figure_svg", return_value=""),
    ):
        yield


@contextmanager
def unpaged() -> Generator[None]:
    """Searches whose page and figures are not drawn."""
    page, charts = "lratlas.api.advise.advice_page", "lratlas.api.advise.charts_of"
    with unfigured(), patch(page, return_value=""), patch(charts, return_value={"advice": None}):
        yield


@contextmanager
def workerless() -> Generator[None]:
    """Studies whose jobs are done in this process, unless they name an executor."""
    with patch.object(scheduler, "execute", partial(_execute_here, scheduler.execute)):
        yield


def _execute_here(execute: Callable[..., bool], *given: Any, **options: Any) -> bool:
    return execute(*given, **options if options.get("executor") else options | {"workers": 0})


@contextmanager
def without_a_process() -> Generator[None]:
    """Searches with a script that is run again in this process, not by its own Python."""

    def driven(**given: Any) -> Driven:
        return replace(Driven(**given), alone=None)

    with patch.object(find, "Driven", driven):
        yield


def lines_of(*cheaper: Callable[[], AbstractContextManager[None]]) -> str:
    """Python with which a script or a notebook has these for the rest of its process."""
    return f"""
import sys
sys.path.append({str(Path(__file__).parent)!r})
import cheaper
patched = [{", ".join(f"cheaper.{each.__name__}()" for each in cheaper)}]
for each in patched:
    each.__enter__()
"""
