"""The controls below a chart: the seed, the fine-tuning LR, the number of averaged checkpoints."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import altair as alt
import polars as pl

from lratlas.report import axes
from lratlas.report.frames import over_seeds
from lratlas.report.rows import EVERY_SEED

MEAN = "mean over seeds"
ALL, NONE = "all", "none"
# Prefixes of the names of models, and of the lines of the accuracy chart.
FLR, COUNT = "FLR ", "SWA-"


@dataclass(frozen=True, kw_only=True)
class Control:
    """A control of a chart, bound to a select element if there is more than one option.

    Attributes:
        name: The name of the parameter in expressions.
        default: The initial choice, also used in pictures.
        parameter: The Vega-Lite parameter.
        fixed: Whether there is only one option, so no element is shown.
    """

    name: str
    default: str
    parameter: alt.Parameter
    fixed: bool

    def is_at(self, value: str) -> str:
        """An expression that is true if this value is chosen."""
        return f"{self.name} === {json.dumps(value, ensure_ascii=False)}"

    def passes(self, column: str) -> str:
        """An expression that is true for rows whose column has the chosen value."""
        return f"datum.{column} === {self.name}"


def control(label: str, chart: str, options: Mapping[str, str], default: str) -> Control:
    """A control with a visible label; the chart's name makes it unique within a page.

    Args:
        label: ``seed``, ``FLR`` or ``k``.
        chart: The name of the chart.
        options: The options as values in expressions, with the text that readers see.
        default: The initial choice.
    """
    name = f"{label.lower()}_{chart}"
    if len(options) < 2:
        return Control(name=name, default=default, parameter=alt.param(name=name, value=default), fixed=True)
    select = alt.binding_select(options=list(options), labels=list(options.values()), name=f"{label} ")
    parameter = alt.param(name=name, value=default, bind=select)
    return Control(name=name, default=default, parameter=parameter, fixed=False)


def seed_control(data: pl.DataFrame, chart: str, *, together: str = MEAN) -> Control:
    """The choice between all seeds together and a single seed.

    Args:
        data: The chart's data; with one seed there is no choice.
        chart: The name of the chart.
        together: The name for all seeds together.
    """
    seeds = data["seed"].drop_nulls().unique().sort().to_list()
    one_by_one = {str(seed): str(seed) for seed in seeds} if len(seeds) > 1 else {}
    return control("seed", chart, {EVERY_SEED: together} | one_by_one, EVERY_SEED)


def chosen_from(data: pl.DataFrame) -> pl.DataFrame:
    """The rows that a chart needs: without the rows of single seeds if there is only one seed."""
    return over_seeds(data) if data["seed"].drop_nulls().n_unique() < 2 else data


def some_control(label: str, chart: str, names: list[str], first: str | None = None) -> Control:
    """The choice between all models of a kind, none, and one: the FLR or the k of the given names.

    Args:
        label: ``FLR`` or ``k``.
        chart: The name of the chart.
        names: The names of the models, such as ``FLR 1e-4``.
        first: The initial choice; None for all.
    """
    if len(names) < 2:
        return control(label, chart, {ALL: ALL}, ALL)
    return control(label, chart, {ALL: ALL, NONE: NONE} | {name: short(name) for name in names}, first or ALL)


def short(name: str) -> str:
    """The FLR or the k of a model's name.

    Example:
        >>> short("fine-tuned, FLR 1e-4"), short("SWA-20")
        ('1e-4', '20')
    """
    return name.rpartition(FLR if FLR in name else COUNT)[2]


def passes_some(chosen: Control, column: str, value: str, name: str) -> str:
    """An expression that is true for rows of other kinds, and for rows of the chosen models.

    Args:
        chosen: A control from `some_control`.
        column: The column with the kinds of models.
        value: The kind that the control selects from.
        name: The column with the names of models.
    """
    return f"(datum.{column} !== '{value}' || {chosen.is_at(ALL)} || {chosen.passes(name)})"


def scale(
    shown: pl.DataFrame,
    every: pl.DataFrame,
    columns: tuple[str, str],
    *controls: Control,
    floor: float | None = None,
    share: bool = False,
    height: int | None = None,
) -> alt.Scale:
    """A scale that covers two columns of the initial rows, and those of all rows once the reader has chosen.

    Args:
        shown: The rows shown initially.
        every: All rows.
        columns: The columns with the lowest and the highest values.
        controls: The controls.
        floor: The start of the scale, unless there are lower values.
        share: Whether the values are shares of a whole (see `lratlas.report.axes.limits`).
        height: The height of the panel (see `lratlas.report.axes.round_scale`).
    """
    first, later = (axes.limits(rows, *columns, floor=floor, share=share) for rows in (shown, every))
    if first is None or later is None or first == later:
        return axes.scale(shown, *columns, floor=floor, share=share, height=height)
    return axes.round_scale(*(either(a, b, *controls) for a, b in zip(first, later, strict=True)), height=height)


def either(first: float, later: float, *controls: Control) -> float | alt.ExprRef:
    """One number until the reader chooses something, and another one afterwards."""
    if first == later:
        return first
    untouched = " && ".join(one.is_at(one.default) for one in controls)
    return alt.expr(f"{untouched} ? {first!r} : {later!r}")
