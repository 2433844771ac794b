"""What a reader chooses below a chart: the seed, the fine-tuning LR, the number of averaged checkpoints."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import altair as alt
import polars as pl

from lratlas.report import theme
from lratlas.report.frames import over_seeds
from lratlas.report.theme import EVERY_SEED

MEAN = "mean over seeds"
ALL, NONE = "all", "none"
# How the names of models, and of the lines of the accuracy chart, begin.
FLR, COUNT = "FLR ", "SWA-"


@dataclass(frozen=True, kw_only=True)
class Control:
    """One choice of one chart, which is bound to a select element where there is more than one option.

    Attributes:
        name: Of the parameter, as expressions write it.
        default: What is chosen at first, and in a picture.
        parameter: The Vega-Lite parameter.
        fixed: There is but one option, so nothing is offered.
    """

    name: str
    default: str
    parameter: alt.Parameter
    fixed: bool

    def is_at(self, value: str) -> str:
        """The expression that is true where this value is chosen."""
        return f"{self.name} === {json.dumps(value, ensure_ascii=False)}"

    def passes(self, column: str) -> str:
        """The expression that is true for rows whose column has the value that is chosen."""
        return f"datum.{column} === {self.name}"


def control(label: str, chart: str, options: Mapping[str, str], default: str) -> Control:
    """A choice under the name that readers see, unique within a page by the chart's.

    Args:
        label: ``seed``, ``FLR`` or ``k``.
        chart: The name of the chart.
        options: What may be chosen, as expressions see it, and what readers see instead.
        default: What is chosen at first.
    """
    name = f"{label.lower()}_{chart}"
    if len(options) < 2:
        return Control(name=name, default=default, parameter=alt.param(name=name, value=default), fixed=True)
    select = alt.binding_select(options=list(options), labels=list(options.values()), name=f"{label} ")
    parameter = alt.param(name=name, value=default, bind=select)
    return Control(name=name, default=default, parameter=parameter, fixed=False)


def seed_control(data: pl.DataFrame, chart: str, *, together: str = MEAN) -> Control:
    """All seeds together, or one of them.

    Args:
        data: The chart's data; those of one seed leave no choice.
        chart: The name of the chart.
        together: What all seeds together are called.
    """
    seeds = data["seed"].drop_nulls().unique().sort().to_list()
    one_by_one = {str(seed): str(seed) for seed in seeds} if len(seeds) > 1 else {}
    return control("seed", chart, {EVERY_SEED: together} | one_by_one, EVERY_SEED)


def chosen_from(data: pl.DataFrame) -> pl.DataFrame:
    """The rows that a chart needs: without those of the single seed where there is but one."""
    return over_seeds(data) if data["seed"].drop_nulls().n_unique() < 2 else data


def some_control(label: str, chart: str, names: list[str], first: str | None = None) -> Control:
    """All models of a kind, none, or one of them: the FLR or the k of the names given.

    Args:
        label: ``FLR`` or ``k``.
        chart: The name of the chart.
        names: Of the models, such as ``FLR 1e-4``.
        first: The one that is shown at first; None for all.
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
    """The expression that is true for rows of another kind, and for those of the models chosen.

    Args:
        chosen: Made by `some_control`.
        column: The one that tells kinds of models apart.
        value: The kind that the choice is about.
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
    """The scale that shows two columns whole as long as nothing is chosen, and all that may be chosen afterwards.

    Args:
        shown: The rows shown at first.
        every: All rows.
        columns: The ones with the lowest and the highest values.
        controls: The choices.
        floor: Where the scale begins unless there are lower values.
        share: The values are shares of a whole (see `lratlas.report.theme.limits`).
        height: Of the panel (see `lratlas.report.theme.round_scale`).
    """
    first, later = (theme.limits(rows, *columns, floor=floor, share=share) for rows in (shown, every))
    if first is None or later is None or first == later:
        return theme.scale(shown, *columns, floor=floor, share=share, height=height)
    return theme.round_scale(*(either(a, b, *controls) for a, b in zip(first, later, strict=True)), height=height)


def either(first: float, later: float, *controls: Control) -> float | alt.ExprRef:
    """One number as long as nothing is chosen, and another one afterwards."""
    if first == later:
        return first
    untouched = " && ".join(one.is_at(one.default) for one in controls)
    return alt.expr(f"{untouched} ? {first!r} : {later!r}")
