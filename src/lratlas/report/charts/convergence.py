"""The chart of epochs to convergence, their power law, and the accuracy reached: data and drawing."""

import math
from dataclasses import dataclass

import altair as alt
import numpy as np
import polars as pl

from lratlas.analysis.power_law import rising
from lratlas.report import axes, theme
from lratlas.report.axes import log_axis
from lratlas.report.charts import controls
from lratlas.report.charts.controls import Control
from lratlas.report.frames import need, over_seeds, regime_bands, repeat_by_seed
from lratlas.report.rows import EVERY_SEED, inline, source
from lratlas.report.theme import Drawing, Text
from lratlas.tables import Tables, table

_LAW_POINTS = 80
# The curve ends at this share of the distance from the last PLR to the threshold, which it never reaches.
_LAW_END = 0.6


def convergence_data(tables: Tables) -> pl.DataFrame:
    """Epochs to convergence and the test accuracy reached, against PLR (Fig. 11 of the paper).

    Args:
        tables: The study's tables; only ``convergence`` is read.

    Returns:
        One row per PLR, for all seeds together and then for each seed: ``plr``, ``seed`` (null: over seeds), ``epochs``
        (over seeds the median, with seeds that never converged as infinite; null if infinite, or if the seed never
        converged), ``mean``, ``low`` and ``high`` (test accuracy of converged seeds, mean ∓ standard deviation over
        seeds; equal to the mean for one seed), ``seeds``, ``converged`` (number of seeds).

    Raises:
        StudyError: The table ``convergence`` is empty.
    """
    epochs = pl.col("epochs").cast(pl.Float64).fill_null(math.inf).median()
    accuracy = pl.col("test_accuracy").filter(pl.col("epochs").is_not_null())
    spread = accuracy.std().fill_null(0.0)
    return (
        repeat_by_seed(need(tables, "convergence", "convergence"))
        .group_by("plr", "seed")
        .agg(
            epochs=pl.when(epochs.is_finite()).then(epochs),
            mean=accuracy.mean(),
            low=accuracy.mean() - spread,
            high=accuracy.mean() + spread,
            seeds=pl.col("one").n_unique().cast(pl.Int64),
            converged=pl.col("epochs").count().cast(pl.Int64),
        )
        .sort("seed", "plr")
    )


def law_data(tables: Tables) -> pl.DataFrame:
    """The fitted power law as points of a curve.

    Args:
        tables: The study's tables; ``power_law`` (may be empty) and ``convergence``.

    Returns:
        One row per point in order: ``plr``, ``epochs``, from the first fitted PLR to slightly beyond the last, and
        ``threshold``; no rows without a law.
    """
    law = {row["parameter"]: row["value"] for row in table(tables, "power_law").iter_rows(named=True)}
    part = rising(table(tables, "convergence"))
    if not law or part.is_empty():
        return pl.DataFrame(schema=dict.fromkeys(("plr", "epochs", "threshold"), pl.Float64))
    ends = (law["threshold"] - part["plr"][0], (1 - _LAW_END) * (law["threshold"] - part["plr"][-1]))
    distances = np.geomspace(*ends, _LAW_POINTS)
    return pl.DataFrame(
        {"plr": law["threshold"] - distances, "epochs": law["scale"] * distances ** -law["exponent"]}
    ).with_columns(threshold=pl.lit(law["threshold"]))


_DOT, _MEDIAN, _LAW = "a seed", "median over seeds", "power law"
_COLOURS = alt.Scale(domain=[_DOT, _MEDIAN, _LAW], range=[theme.NEUTRAL, theme.STRONG[1], theme.STRONG[0]])
# Room below the fewest epochs, and above the most for the regime names, as factors.
_BELOW, _ABOVE = 1.15, 2.0


@dataclass(frozen=True, kw_only=True)
class _View:
    """The visible range of PLRs, and its axis."""

    low: float
    high: float
    axis: alt.X

    def cut_bands(self, bands: pl.DataFrame) -> pl.DataFrame:
        """The bands of the regimes clipped to the view, with names in the middle of the visible parts."""
        ends = (pl.col(name).clip(self.low, self.high) for name in ("low", "high"))
        cut = bands.with_columns(*ends).filter(pl.col("low") < pl.col("high"))
        return cut.with_columns(middle=(pl.col("low") * pl.col("high")).sqrt())

    def panel(self, layers: list[alt.Chart], tables: Tables, title: str, width: int) -> alt.LayerChart:
        """Layers over the shaded regimes."""
        shading = theme.shading(self.cut_bands(regime_bands(tables)), width=width, lettering=11)
        return alt.LayerChart(layer=[*shading, *layers]).properties(
            title=alt.Title(title, frame="group"), width=width, height=240
        )


_CONVERGENCE_WORDS = Text(
    heading="Epochs to convergence near the threshold",
    caption="The first epoch with every training sample classified correctly: a dot for each seed, "
    "and a line for the median over seeds. Seeds that never reach it count as infinite; a "
    "triangle marks their PLRs. If the medians determine a power law in the distance to the "
    "convergence threshold, it is dashed, its threshold is the vertical line, and a "
    "separate chart shows the rise. The last chart shows the test accuracy at the end of "
    "that epoch, mean over the seeds that reach it ± one standard deviation.",
    alt="Charts against the pre-training learning rate: the epochs to convergence on a log axis, a dot for each "
    "seed, a line for the median and, where there is one, the fitted power law with its threshold; and the mean "
    "test accuracy at convergence with a band of one standard deviation. Regimes are shaded.",
)


def convergence_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Epochs to convergence against PLR, the power law of their rise, and the test accuracy reached (Fig. 11).

    Args:
        tables: The study's tables; ``convergence``, ``power_law`` for the law, ``regimes`` for the shading.
        elr: The LRs are effective ones.

    Raises:
        StudyError: The table ``convergence`` is empty.
    """
    data, law = convergence_data(tables), law_data(tables)
    seed = controls.seed_control(data, "convergence", together="median over seeds")
    whole = _whole(over_seeds(data), law, elr=elr)
    width = 385 if law.is_empty() else 245
    panels = [
        whole.panel(_epochs(data, law, whole, seed, "all"), tables, "all PLRs that converge", width),
        whole.panel(_accuracy(data, whole, seed), tables, "accuracy reached", width),
    ]
    if law.height:
        near = _near(law, elr=elr)
        rise = data.filter(pl.col("plr").is_between(near.low, near.high))
        panels.insert(
            1, near.panel(_epochs(rise, law, near, seed, "rise"), tables, "the rise, on a linear axis", width)
        )
    return theme.finish(alt.hconcat(*panels, spacing=14), _CONVERGENCE_WORDS, seed.parameter)


def _epochs(data: pl.DataFrame, law: pl.DataFrame, view: _View, seed: Control, name: str) -> list[alt.Chart]:
    """Dots, the line of medians, the law with its threshold, and marks where seeds never converged."""
    shown = [_DOT, _MEDIAN, _LAW] if law.height else [_DOT, _MEDIAN]
    epochs = pl.concat([data["epochs"], law["epochs"]]).drop_nulls()
    ends = [epochs.quantile(0.0) or 1.0, epochs.quantile(1.0) or 1.0]
    y = (
        alt.Y("epochs:Q")
        .scale(type="log", domain=[ends[0] / _BELOW, ends[1] * _ABOVE], nice=False)
        .title("epochs to convergence" if name == "all" else None)
        .axis(format="~s", tickCount=5)
    )
    colour = alt.Color("shown:N").scale(_COLOURS).title(None).legend(orient="bottom", values=shown, symbolOpacity=1)
    tips = [theme.plr_tip(), alt.Tooltip("epochs:Q").format(",")]
    counts = [alt.Tooltip("converged:Q"), alt.Tooltip("seeds:Q")]
    each = data.drop_nulls(["seed", "epochs"]).select("seed", "plr", "epochs", shown=pl.lit(_DOT))
    lines = source(data.drop("mean", "low", "high").with_columns(shown=pl.lit(_MEDIAN)), by=["seed", "shown"])
    dots = (
        source(each, by=["seed", "shown"])
        .chart(f"{seed.is_at(EVERY_SEED)} || {seed.passes('seed')}")
        .mark_point(clip=True, filled=True, size=16)
        .encode(x=view.axis, y=y, color=colour, tooltip=[alt.Tooltip("seed:N"), *tips])
    )
    line = (
        lines.chart(seed.passes("seed"))
        .transform_filter("isValid(datum.epochs)")
        .mark_line(clip=True, strokeWidth=1.8, point=alt.OverlayMarkDef(size=22))
        .encode(x=view.axis, y=y, color=colour, tooltip=[alt.Tooltip("shown:N"), *tips, *counts])
    )
    never = (
        lines.chart(seed.passes("seed"))
        .transform_filter("datum.converged < datum.seeds")
        .mark_point(clip=True, shape="triangle-up", size=24, color=theme.NEUTRAL)
        .encode(x=view.axis, y=alt.value(22), tooltip=[theme.plr_tip(), *counts])
    )
    return [dots, line.add_params(theme.zoom(f"epochs_{name}")), never, *_law(law, view, y, colour)]


def _law(law: pl.DataFrame, view: _View, y: alt.Y, colour: alt.Color) -> list[alt.Chart]:
    """The curve of the power law and the vertical line of its threshold; no layers without a law."""
    if law.is_empty():
        return []
    curve = alt.Chart(_name_rows(_LAW, law)).encode(x=view.axis, y=y)
    tip = alt.Tooltip("threshold:Q").format(theme.LR_FORMAT)
    values = ["shown:N", theme.plr_tip(), alt.Tooltip("epochs:Q").format(",.1f"), tip]
    rule = alt.Chart(_name_rows(_LAW, law.head(1))).mark_rule(strokeWidth=1.2)
    return [
        curve.mark_line(clip=True, strokeWidth=1.6, strokeDash=[5, 3]).encode(color=colour),
        rule.encode(x=alt.X("threshold:Q"), color=colour, tooltip=[tip]),
        theme.hover(curve).encode(tooltip=values),
    ]


def _accuracy(data: pl.DataFrame, view: _View, seed: Control) -> list[alt.Chart]:
    """Test accuracy after training to convergence: mean and one standard deviation."""
    means = data.drop_nulls("mean").drop("epochs")
    scale = controls.scale(over_seeds(means), means, ("low", "high"), seed, share=True)
    tips = [theme.plr_tip(), *(alt.Tooltip(f"{name}:Q").format(theme.PERCENT) for name in ("mean", "low", "high"))]
    rows = source(means, by=["seed"]).chart(seed.passes("seed"))
    base = rows.encode(x=view.axis, tooltip=[*tips, alt.Tooltip("converged:Q"), alt.Tooltip("seeds:Q")])
    band = base.mark_area(clip=True, opacity=0.15, color=theme.STRONG[1]).encode(
        y=alt.Y("low:Q").scale(scale), y2=alt.Y2("high:Q")
    )
    points = alt.OverlayMarkDef(size=22, color=theme.STRONG[1])
    line = base.mark_line(clip=True, strokeWidth=1.8, color=theme.STRONG[1], point=points).encode(
        y=alt.Y("mean:Q").scale(scale).title("test accuracy at convergence").axis(format="%", labelFlush=True)
    )
    return [band, line.add_params(theme.zoom("converged_accuracy"))]


def _name_rows(name: str, frame: pl.DataFrame) -> alt.InlineData:
    """The rows with their name in the legend."""
    return inline(frame.with_columns(shown=pl.lit(name)))


def _whole(data: pl.DataFrame, law: pl.DataFrame, *, elr: bool) -> _View:
    """The PLRs with a converged run, and one more on either side to show where they end."""
    plrs = data["plr"].unique().sort()
    reached = plrs.is_in(data.filter(pl.col("converged") > 0)["plr"].implode()).arg_true()
    first, last = (reached[0], reached[-1]) if len(reached) else (0, len(plrs) - 1)
    low, high = plrs[max(first - 1, 0)], plrs[min(last + 1, len(plrs) - 1)]
    high = max(high, law["threshold"][0]) if law.height else high
    room = max((high / low) ** 0.04, 1.02)
    ends = (low / room, high * room)
    axis = axes.plr_axis(elr=elr).scale(type="log", nice=False, domain=list(ends)).axis(log_axis(*ends))
    return _View(low=ends[0], high=ends[1], axis=axis)


def _near(law: pl.DataFrame, *, elr: bool) -> _View:
    """The PLRs of the law, up to slightly above its threshold."""
    first, threshold = law["plr"][0], law["threshold"][0]
    ends = (first - 0.06 * (threshold - first), threshold + 0.06 * (threshold - first))
    axis = (
        axes.plr_axis(elr=elr)
        .scale(type="linear", zero=False, nice=False, domain=list(ends))
        .axis(format="~e", labelExpr=axes.PLAIN_EXPONENT, tickCount=3, grid=False, labelOverlap="greedy")
    )
    return _View(low=ends[0], high=ends[1], axis=axis)
