"""The drawings of the minima: the ways of two stages, the filters' norms, sharpness and test error."""

import json
import math
from typing import Any

import altair as alt
import polars as pl

from lratlas.analysis.minima import ALL, STATES
from lratlas.report import theme
from lratlas.report.charts import controls
from lratlas.report.charts.controls import Control
from lratlas.report.charts.minima_data import WAY_NAMES, norms_data, sharpness_data, two_stages_data
from lratlas.report.charts.texts import TEXTS
from lratlas.report.frames import lr_text, over_seeds
from lratlas.report.theme import Drawing, log_axis, source
from lratlas.tables import Tables

_WAY_COLOURS = alt.Scale(domain=list(WAY_NAMES.values()), range=[theme.NEUTRAL, theme.STRONG[1], theme.STRONG[0]])
_STATE_COLOURS = alt.Scale(domain=list(STATES), range=[theme.NEUTRAL, theme.STRONG[1], theme.STRONG[0]])
# Narrower bars have no room for their numbers, pixels with what lies between.
_NUMBERED = 28
_SHAPES = alt.Scale(domain=["pre-trained", "fine-tuned", "averaged"], range=["circle", "triangle-up", "square"])
_PLAIN = {"type": "linear", "zero": False, "nice": True}
_SHARPNESS = {
    "top_eigenvalue": "top Hessian eigenvalue",
    "trace": "Hessian trace",
    "gradient_norm": "gradient norm",
}


def two_stages_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Test accuracy after two stages beside the direct ways, a panel per pair of PLRs, a group per FLR (Fig. 12).

    Args:
        tables: The study's tables; of them only ``runs``.
        elr: The LRs are effective ones.

    Raises:
        StudyError: No model was fine-tuned after a second PLR.
    """
    data = controls.chosen_from(two_stages_data(tables)).with_columns(
        flr=pl.col("flr").map_elements(lr_text, return_dtype=pl.String),
        way=pl.col("way").replace_strict(WAY_NAMES, return_dtype=pl.String),
        number=pl.col("mean").mul(100).round(1).cast(pl.String),
    )
    seed = controls.seed_control(data, "two_stages")
    packed = source(data.drop("plr", "plr2"), by=["pair", "seed"])
    usual, highest = (min(1.0, 1.1 * (rows["high"].quantile(1.0) or 1.0)) for rows in (over_seeds(data), data))
    scale = alt.Scale(domain=[0, controls.either(usual, highest, seed)])
    pairs, flrs = (data[name].unique(maintain_order=True).to_list() for name in ("pair", "flr"))
    columns = theme.columns(len(pairs), most=3)
    width, height = 584 // columns - 10 * columns, 250 if len(pairs) <= 3 else 105
    numbered = width >= _NUMBERED * len(WAY_NAMES) * len(flrs)
    pick = alt.selection_point(name="pick", fields=["way"], bind="legend", toggle="true")
    panels = [
        _bars(
            packed.chart(seed.passes("seed"), f"datum.pair === {json.dumps(pair, ensure_ascii=False)}"),
            pick,
            scale,
            elr=elr,
            first=i % columns == 0,
            numbered=numbered,
        )
        .add_params(*((pick,) if i == 0 else ()))
        .properties(title=f"PLR {pair}", width=width, height=height)
        for i, pair in enumerate(pairs)
    ]
    return theme.finish(alt.concat(*panels, columns=columns, spacing=14), TEXTS["two_stages"].alt, seed.parameter)


def norms_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Distribution of the filters' norms before and after training, a panel per regime (Fig. 13).

    Args:
        tables: The study's tables; ``norms`` and ``regimes``.
        elr: Makes no difference: no LR is on an axis.

    Raises:
        StudyError: The table ``norms`` is empty.
    """
    del elr
    data = controls.chosen_from(norms_data(tables)).with_columns(norm=10.0 ** pl.col("log_norm"))
    regimes = data["regime"].unique(maintain_order=True).to_list()
    columns = min(len(regimes), 2)
    rows = math.ceil(len(regimes) / columns)
    seed = controls.seed_control(data, "norms", together="all seeds")
    packed = source(data.drop("log_norm", "flr"), by=["regime", "state", "seed", "spread", "filters"])
    pick = alt.selection_point(name="pick", fields=["state"], bind="legend", toggle="true")
    ends = [10 ** (data["log_norm"].quantile(share) or 0.0) for share in (0.0, 1.0)]
    x = alt.X("norm:Q").scale(type="log", domain=ends, nice=False).axis(log_axis(*ends))
    panels = [
        _steps(
            packed.chart(seed.passes("seed"), f"datum.regime === '{regime}'"),
            pick,
            x,
            first=i % columns == 0,
            last=i // columns == rows - 1,
        )
        .add_params(*((pick,) if i == 0 else ()))
        .properties(
            title={ALL: "all PLRs", "undecided": "undecided"}.get(regime, f"regime {regime}"),
            width=594 // columns - 16 * columns,
            height=(280 - 30 * (rows - 1)) // rows,
        )
        for i, regime in enumerate(regimes)
    ]
    return theme.finish(alt.concat(*panels, columns=columns, spacing=14), TEXTS["norms"].alt, seed.parameter)


def sharpness_chart(tables: Tables, *, at_loss: float | None = None, elr: bool = False) -> Drawing:
    """Test error against sharpness among models of about equal training loss, a panel per measure (Fig. 26).

    Args:
        tables: The study's tables; ``sharpness`` and ``regimes``.
        at_loss: The training loss; by default the one that most PLRs have a model at.
        elr: The LRs are effective ones.

    Raises:
        StudyError: The table ``sharpness`` is empty, or no model has such a loss.
    """
    data = controls.chosen_from(sharpness_data(tables, at_loss=at_loss))
    models = data.select("kind", "model").unique(maintain_order=True)
    seed = controls.seed_control(data, "sharpness")
    flr, count = (
        controls.some_control(label, "sharpness", models.filter(kind=kind)["model"].to_list())
        for label, kind in (("FLR", "fine-tuned"), ("k", "averaged"))
    )
    rows = source(data.drop("level", "flr", "count"), by=["kind", "model", "seed"]).chart(
        seed.passes("seed"),
        controls.passes_some(flr, "kind", "fine-tuned", "model"),
        controls.passes_some(count, "kind", "averaged", "model"),
    )
    pick = alt.selection_point(name="pick", fields=["kind"], bind="legend", toggle="true")
    panels = [
        _dots(rows, data.drop_nulls([name, "test_error"]), name, pick, seed, elr=elr, first=i == 0)
        .add_params(*((pick,) if i == 0 else ()))
        .properties(width=160, height=230)
        for i, name in enumerate(_SHARPNESS)
    ]
    level = data["level"][0]
    joined = alt.hconcat(*panels, spacing=14, title=f"at a training loss of about {level:.2g}")
    return theme.finish(joined, TEXTS["sharpness"].alt, seed.parameter, flr.parameter, count.parameter)


def _bars(
    rows: alt.Chart, pick: alt.Parameter, scale: alt.Scale, *, elr: bool, first: bool, numbered: bool
) -> alt.LayerChart:
    """The bars of one pair of PLRs with their deviations and, where there is room, their numbers in per cent."""
    ways = list(WAY_NAMES.values())
    base = rows.encode(
        x=alt.X("flr:N")
        .sort(None)
        .title("fine-tuning LR (ELR)" if elr else "fine-tuning LR")
        .axis(labelAngle=0, labelOverlap="greedy", labelFontSize=9),
        xOffset=alt.XOffset("way:N").sort(ways),
        opacity=alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.1)),
        tooltip=[
            alt.Tooltip("name:N").title("way"),
            *(alt.Tooltip(f"{name}:Q").format(theme.PERCENT) for name in ("mean", "low", "high")),
            alt.Tooltip("seeds:Q"),
        ],
    )
    bars = base.mark_bar().encode(
        y=alt.Y("mean:Q").scale(scale).title("test accuracy" if first else None).axis(format="%"),
        color=alt.Color("way:N").scale(_WAY_COLOURS).sort(ways).title(None).legend(orient="bottom", labelLimit=250),
    )
    deviations = base.mark_rule(strokeWidth=1.2).encode(y=alt.Y("low:Q").scale(scale), y2=alt.Y2("high:Q"))
    numbers = base.mark_text(dy=-5, fontSize=9, baseline="bottom").encode(
        y=alt.Y("high:Q").scale(scale), text=alt.Text("number:N")
    )
    return alt.LayerChart(layer=[bars, deviations, *([numbers] if numbered else [])])


def _steps(rows: alt.Chart, pick: alt.Parameter, x: alt.X, *, first: bool, last: bool) -> alt.LayerChart:
    """The histograms of one regime as outlines."""
    y = alt.Y("share:Q").scale(type="sqrt").title("share of filters" if first else None)
    base = rows.encode(
        x=x.title("norm of a filter over the total norm" if last else None), y=y.axis(format="%", tickCount=4)
    )
    values = [
        alt.Tooltip("state:N"),
        alt.Tooltip("norm:Q").format(theme.LR_FORMAT),
        alt.Tooltip("share:Q").format(theme.PERCENT),
        alt.Tooltip("spread:Q").title("spread, decades").format(".2f"),
        alt.Tooltip("filters:Q"),
    ]
    outlines = base.mark_line(interpolate="step", strokeWidth=1.6, clip=True).encode(
        color=alt.Color("state:N").scale(_STATE_COLOURS).sort(list(STATES)).title(None).legend(orient="bottom"),
        opacity=alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.1)),
    )
    return alt.LayerChart(layer=[outlines, theme.hover(base).encode(tooltip=values)])


def _dots(
    rows: alt.Chart, data: pl.DataFrame, name: str, pick: alt.Parameter, seed: Control, *, elr: bool, first: bool
) -> alt.LayerChart:
    """Test error against one measure, hollow where the eigenvalue did not converge."""
    lowest, highest = _range(over_seeds(data)[name])
    log = bool((data[name] > 0).all())
    x = alt.X(f"{name}:Q").scale(_room(data, name, seed, **({"type": "log", "nice": False} if log else _PLAIN)))
    plrs = alt.Scale(
        type="log",
        range=theme.PLR_RAMP,
        interpolate="lab",
        domain=[data["plr"].quantile(0.0), data["plr"].quantile(1.0)],
    )
    legend = alt.Legend(format="~e", labelExpr=theme.PLAIN_EXPONENT, tickCount=5, gradientLength=130)
    measures = [alt.Tooltip(f"{column}:Q").format(".3g") for column in (*_SHARPNESS, "train_loss")]
    base = rows.transform_filter(f"isValid(datum.{name}) && isValid(datum.test_error)").encode(
        x=x.title(_SHARPNESS[name]).axis(
            log_axis(lowest / 1.5, highest * 1.5) if log else alt.Axis(format="~s", tickCount=4)
        ),
        y=alt.Y("test_error:Q")
        .scale(_room(data, "test_error", seed, **_PLAIN))
        .title("test error" if first else None)
        .axis(format="%"),
        shape=alt.Shape("kind:N").scale(_SHAPES).title(None).legend(orient="bottom"),
        opacity=alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.08)),
        tooltip=[
            alt.Tooltip("model:N"),
            theme.plr_tip(),
            alt.Tooltip("test_error:Q").format(theme.PERCENT),
            *measures,
            alt.Tooltip("residual:Q").format(".1e"),
            alt.Tooltip("converged:N"),
            alt.Tooltip("seeds:Q"),
        ],
    )
    colour = alt.Color("plr:Q").scale(plrs).title("PLR (ELR)" if elr else "PLR").legend(legend)
    # Only the eigenvalue is found by an iteration.
    may_fail = name == "top_eigenvalue" and not data["converged"].all()
    full = base.transform_filter("datum.converged") if may_fail else base
    # Not by an encoding: outlines beside filled marks would turn the legend of colours into a list.
    outline = alt.expr("scale('color', datum.plr)")
    hollow = base.transform_filter("!datum.converged").mark_point(
        filled=False, size=50, strokeWidth=1.8, stroke=outline
    )
    filled = full.mark_point(filled=True, size=56, opacity=0.9).encode(color=colour)
    return alt.LayerChart(layer=[filled, *([hollow] if may_fail else [])])


def _range(values: pl.Series) -> tuple[float, float]:
    return values.quantile(0.0) or 0.0, values.quantile(1.0) or 0.0


def _room(data: pl.DataFrame, name: str, seed: Control, **more: Any) -> alt.Scale:
    """The scale of all models over seeds or, once a seed is chosen, of all models of all seeds."""
    low, high = (
        controls.either(first, later, seed)
        for first, later in zip(_range(over_seeds(data)[name]), _range(data[name]), strict=True)
    )
    return alt.Scale(domain=[low, high], padding=8, **more)
