"""All charts of a study by name: the function that draws each, and the function that returns its data."""

from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import Protocol

import polars as pl

from lratlas.measure.builtin import MEASUREMENTS
from lratlas.report.charts.convergence import convergence_chart, convergence_data
from lratlas.report.charts.minima import two_stages_chart, two_stages_data
from lratlas.report.charts.quality import (
    accuracy_chart,
    accuracy_data,
    last_tenth_chart,
    last_tenth_data,
    loss_chart,
    loss_data,
)
from lratlas.report.charts.traces import traces_chart, traces_data
from lratlas.report.theme import Drawing
from lratlas.tables import Tables

_FIGURES = [figure for measurement in MEASUREMENTS for figure in measurement.needs.figures]


class TableChart(Protocol):
    """A function that draws one chart from only the tables of a study."""

    def __call__(self, tables: Tables, *, elr: bool = False) -> Drawing:
        """The chart; ``elr`` marks the LRs as effective ones."""
        ...


CHARTS: Mapping[str, TableChart] = {
    "accuracy": accuracy_chart,
    "last_tenth": last_tenth_chart,
    "loss": loss_chart,
    **{figure.name: resolve_name(figure.draw) for figure in _FIGURES},
    "traces": traces_chart,
    "convergence": convergence_chart,
    "two_stages": two_stages_chart,
}
CHART_DATA: Mapping[str, Callable[[Tables], pl.DataFrame]] = {
    "accuracy": accuracy_data,
    "last_tenth": last_tenth_data,
    "loss": loss_data,
    "traces": traces_data,
    "convergence": convergence_data,
    "two_stages": two_stages_data,
    **{figure.name: resolve_name(figure.data) for figure in _FIGURES if figure.data},
}
ANSWER = ("accuracy", "loss")
"""The charts that explain the answer; a study has one of them."""
