"""The drawings of the minima: the ways of two stages, the filters' norms, sharpness and test error."""

import math

import altair as alt
import polars as pl

from lratlas.analysis.norm_spread import ALL, STATES
from lratlas.report import look
from lratlas.report.log_axis import log_axis
from lratlas.report.look import Drawing
from lratlas.report.minima_data import WAY_NAMES, norms_data, sharpness_data, two_stages_data
from lratlas.report.rows import lr_text
from lratlas.report.texts import TEXTS
from lratlas.tables import Tables

_WAY_COLOURS = alt.Scale(domain=list(WAY_NAMES.values()), range=[look.NEUTRAL, look.STRONG[1], look.STRONG[0]])
_STATE_COLOURS = alt.Scale(domain=list(STATES), range=[look.NEUTRAL, look.STRONG[1], look.STRONG[0]])
# Narrower bars have no room for their numbers, pixels with what lies between.
_NUMBERED = 28
_SHAPES = alt.Scale(domain=["pre-trained", "fine-tuned", "averaged"], range=["circle", "triangle-up", "square"])
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
    data = two_stages_data(tables).with_columns(
        flr=pl.col("flr").map_elements(lr_text, return_dtype=pl.String),
        way=pl.col("way").replace_strict(WAY_NAMES, return_dtype=pl.String),
        number=pl.col("mean").mul(100).round(1).cast(pl.String),
    )
    pairs = data["pair"].unique(maintain_order=True).to_list()
    columns, top = min(len(pairs), 3), data["high"].quantile(1.0) or 1.0
    width, height = 584 // columns - 10 * columns, 250 if len(pairs) <= 3 else 105
    pick = alt.selection_point(name="pick", fields=["way"], bind="legend", toggle="true")
    panels = [
        _bars(data.filter(pair=pair), pick, elr=elr, first=i % columns == 0, top=top, room=width)
        .add_params(*((pick,) if i == 0 else ()))
        .properties(title=f"PLR {pair}", width=width, height=height)
        for i, pair in enumerate(pairs)
    ]
    return look.finish(alt.concat(*panels, columns=columns, spacing=14), TEXTS["two_stages"].alt)


def norms_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Distribution of the filters' norms before and after training, a panel per regime (Fig. 13).

    Args:
        tables: The study's tables; ``norms`` and ``regimes``.
        elr: Makes no difference: no LR is on an axis.

    Raises:
        StudyError: The table ``norms`` is empty.
    """
    del elr
    data = norms_data(tables)
    regimes = data["regime"].unique(maintain_order=True).to_list()
    columns = min(len(regimes), 2)
    rows = math.ceil(len(regimes) / columns)
    pick = alt.selection_point(name="pick", fields=["state"], bind="legend", toggle="true")
    ends = [10 ** (data["log_norm"].quantile(share) or 0.0) for share in (0.0, 1.0)]
    x = alt.X("norm:Q").scale(type="log", domain=ends, nice=False).axis(log_axis(*ends))
    panels = [
        _steps(data.filter(regime=regime), pick, x, first=i % columns == 0, last=i // columns == rows - 1)
        .add_params(*((pick,) if i == 0 else ()))
        .properties(
            title={ALL: "all PLRs", "undecided": "undecided"}.get(regime, f"regime {regime}"),
            width=594 // columns - 16 * columns,
            height=(280 - 30 * (rows - 1)) // rows,
        )
        for i, regime in enumerate(regimes)
    ]
    return look.finish(alt.concat(*panels, columns=columns, spacing=14), TEXTS["norms"].alt)


def sharpness_chart(tables: Tables, *, at_loss: float | None = None, elr: bool = False) -> Drawing:
    """Test error against sharpness among models of about equal training loss, a panel per measure (Fig. 26).

    Args:
        tables: The study's tables; ``sharpness`` and ``regimes``.
        at_loss: The training loss; by default the one that most PLRs have a model at.
        elr: The LRs are effective ones.

    Raises:
        StudyError: The table ``sharpness`` is empty, or no model has such a loss.
    """
    data = sharpness_data(tables, at_loss=at_loss)
    pick = alt.selection_point(name="pick", fields=["kind"], bind="legend", toggle="true")
    level = data["level"][0]
    panels = [
        _dots(data, name, title, pick, elr=elr, first=i == 0)
        .add_params(*((pick,) if i == 0 else ()))
        .properties(width=160, height=230)
        for i, (name, title) in enumerate(_SHARPNESS.items())
    ]
    joined = alt.hconcat(*panels, spacing=14).properties(title=f"at a training loss of about {level:.2g}")
    return look.finish(joined, TEXTS["sharpness"].alt)


def _bars(data: pl.DataFrame, pick: alt.Parameter, *, elr: bool, first: bool, top: float, room: int) -> alt.LayerChart:
    """The bars of one pair of PLRs with their deviations and, where there is room, their numbers in per cent."""
    ways = list(WAY_NAMES.values())
    base = alt.Chart(look.inline(data)).encode(
        x=alt.X("flr:N")
        .sort(None)
        .title("fine-tuning LR (ELR)" if elr else "fine-tuning LR")
        .axis(labelAngle=0, labelOverlap="greedy", labelFontSize=9),
        xOffset=alt.XOffset("way:N").sort(ways),
        opacity=alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.1)),
        tooltip=[
            alt.Tooltip("name:N").title("way"),
            *(alt.Tooltip(f"{name}:Q").format(look.PERCENT) for name in ("mean", "low", "high")),
            "seeds:Q",
        ],
    )
    scale = alt.Scale(domain=[0, min(1.0, 1.1 * top)])
    bars = base.mark_bar().encode(
        y=alt.Y("mean:Q").scale(scale).title("test accuracy" if first else None).axis(format="%"),
        color=alt.Color("way:N").scale(_WAY_COLOURS).sort(ways).title(None).legend(orient="bottom", labelLimit=250),
    )
    deviations = base.mark_rule(strokeWidth=1.2).encode(y=alt.Y("low:Q").scale(scale), y2="high:Q")
    numbers = base.mark_text(dy=-5, fontSize=9, baseline="bottom").encode(
        y=alt.Y("high:Q").scale(scale), text="number:N"
    )
    return alt.LayerChart(
        layer=[bars, deviations, *([numbers] if room >= _NUMBERED * len(ways) * data["flr"].n_unique() else [])]
    )


def _steps(data: pl.DataFrame, pick: alt.Parameter, x: alt.X, *, first: bool, last: bool) -> alt.Chart:
    """The histograms of one regime as outlines."""
    y = alt.Y("share:Q").scale(type="sqrt").title("share of filters" if first else None)
    return (
        alt.Chart(look.inline(data.with_columns(norm=10.0 ** pl.col("log_norm"))))
        .mark_line(interpolate="step", strokeWidth=1.6, clip=True)
        .encode(
            x=x.title("norm of a filter over the total norm" if last else None),
            y=y.axis(format="%", tickCount=4),
            color=alt.Color("state:N").scale(_STATE_COLOURS).sort(list(STATES)).title(None).legend(orient="bottom"),
            opacity=alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.1)),
            tooltip=[
                "state:N",
                alt.Tooltip("norm:Q").format(look.LR_FORMAT),
                alt.Tooltip("share:Q").format(look.PERCENT),
                alt.Tooltip("spread:Q").title("spread, decades").format(".2f"),
                "filters:Q",
            ],
        )
    )


def _dots(data: pl.DataFrame, name: str, title: str, pick: alt.Parameter, *, elr: bool, first: bool) -> alt.LayerChart:
    """Test error against one measure, hollow where the eigenvalue did not converge."""
    shown = data.drop_nulls([name, "test_error"])
    # Only the eigenvalue is found by an iteration.
    hollow = shown.filter(~pl.col("converged")) if name == "top_eigenvalue" else shown.clear()
    lowest, highest = shown[name].quantile(0.0) or 0.0, shown[name].quantile(1.0) or 0.0
    log = lowest > 0
    x = alt.X(f"{name}:Q").scale(type="log" if log else "linear", zero=False, nice=not log, padding=8).title(title)
    ends = [look.REGIME_COLOURS[regime] for regime in ("1", "2A", "2B", "3")]
    plrs = alt.Scale(
        type="log", range=ends, interpolate="lab", domain=[data["plr"].quantile(0.0), data["plr"].quantile(1.0)]
    )
    legend = alt.Legend(format="~e", labelExpr=look.PLAIN_EXPONENT, tickCount=5, gradientLength=130)
    measures = [alt.Tooltip(f"{column}:Q").format(".3g") for column in (*_SHARPNESS, "train_loss")]
    base = alt.Chart().encode(
        x=x.axis(log_axis(lowest / 1.5, highest * 1.5) if log else alt.Axis(format="~s", tickCount=4)),
        y=alt.Y("test_error:Q").scale(zero=False, padding=8).title("test error" if first else None).axis(format="%"),
        shape=alt.Shape("kind:N").scale(_SHAPES).title(None).legend(orient="bottom"),
        opacity=alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.08)),
        tooltip=[
            "kind:N",
            look.plr_tip(),
            alt.Tooltip("flr:Q").title("FLR").format(look.LR_FORMAT),
            "count:Q",
            alt.Tooltip("test_error:Q").format(look.PERCENT),
            *measures,
            alt.Tooltip("residual:Q").format(".1e"),
            "converged:N",
            "seeds:Q",
        ],
    )
    colour = alt.Color("plr:Q").scale(plrs).title("PLR (ELR)" if elr else "PLR").legend(legend)
    full = base.properties(data=look.inline(shown)).mark_point(filled=True, size=56, opacity=0.9).encode(color=colour)
    # Hollowed by a white centre: outlines beside filled marks would turn the legend of colours into a list.
    centres = base.properties(data=look.inline(hollow)).mark_point(filled=True, size=16, color="white")
    return alt.LayerChart(layer=[full, *([centres] if hollow.height else [])])
