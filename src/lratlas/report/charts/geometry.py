"""The angle and the barriers between the solutions of one PLR: data, drawing and words of the chart."""

import altair as alt
import polars as pl

from lratlas.report import axes, theme
from lratlas.report.charts import controls
from lratlas.report.frames import need, over_seeds, regime_bands, regimes_in_words, repeat_by_seed
from lratlas.report.rows import source
from lratlas.report.theme import Drawing, Text
from lratlas.tables import Tables, table
from lratlas.text import format_lr
from lratlas.thresholds import DEFAULTS

_ENDS = ("low", "high", "swa")
_PAIR_LABELS = ("low FLR – high FLR", "low FLR – SWA", "high FLR – SWA")
_MEASURES = ("angle", "train_barrier", "test_barrier", "train_barrier_arc", "test_barrier_arc")
_PANELS = {
    "angle": "angle, radians",
    "train_barrier": "train error barrier",
    "test_barrier": "test error barrier",
}
_WIDTH, _HEIGHT = 243, 260  # pixels, of one of three panels


def geometry_data(tables: Tables) -> pl.DataFrame:
    """Angle and error barriers between the solutions of one PLR (Fig. 3 of the paper).

    Args:
        tables: The study's tables; only ``pairs`` is read.

    Returns:
        One row per pair and PLR, for all seeds together and then for each seed: ``pair``, ``seed`` (null: medians over
        seeds), ``plr``, ``angle`` (radians), ``train_barrier`` and ``test_barrier`` on the straight line,
        ``train_barrier_arc`` and ``test_barrier_arc`` on the great circle (null where not measured), ``seeds``.

    Raises:
        StudyError: The table ``pairs`` is empty.
    """
    return (
        repeat_by_seed(_ranked(tables))
        .group_by("seed", "rank", "plr")
        .agg(*(pl.col(name).median() for name in _MEASURES), seeds=pl.col("one").n_unique())
        .sort("seed", "rank", "plr")
        .select(_pair_name(), "seed", "plr", *_MEASURES, "seeds")
    )


def geometry_rows(tables: Tables) -> pl.DataFrame:
    """Each measured angle and barrier: ``measure``, ``pair`` (in words), ``plr``, ``seed``, ``value``.

    Args:
        tables: The study's tables; only ``pairs`` is read.

    Raises:
        StudyError: The table ``pairs`` is empty.
    """
    rows = _ranked(tables).sort("rank", "plr").with_columns(_pair_name())
    return rows.unpivot(_MEASURES, index=["pair", "plr", "seed"], variable_name="measure", value_name="value")


def _ranked(tables: Tables) -> pl.DataFrame:
    rank = pl.min_horizontal(_rank("a"), _rank("b")) + pl.max_horizontal(_rank("a"), _rank("b")) - 1
    return need(tables, "pairs", "geometry").with_columns(rank=rank)


def basin_in_words(data: pl.DataFrame, regimes: pl.DataFrame) -> str:
    """Headline: the PLRs whose solutions are all connected, and the PLRs whose solutions are the least connected.

    Args:
        data: Data from `geometry_data`.
        regimes: The table of regimes; in regime 3 models may be at chance level, which has no barriers.

    Returns:
        The headline; empty if no PLR has a test barrier.
    """
    chance = pl.col("plr").is_in(regimes.filter(regime="3")["plr"].implode())
    worst = (
        over_seeds(data)
        .group_by("plr")
        .agg(barrier=pl.col("test_barrier").max())
        .drop_nulls()
        .sort("plr")
        .with_columns(joined=(pl.col("barrier") <= DEFAULTS.barrier) & ~chance)
    )
    joined = worst.filter("joined")
    if worst.is_empty():
        return ""
    if joined.is_empty():
        return f"Solutions are not all connected at any LR: some barrier exceeds {DEFAULTS.barrier:.0%}"
    parts = worst.with_columns(part=pl.col("joined").rle_id()).filter("joined")
    low, high = (format_lr(joined["plr"][at]) for at in (0, -1))
    if parts["part"].n_unique() > 1 or low == high:
        where = "at " + ", ".join(_range(part["plr"]) for part in parts.partition_by("part", maintain_order=True))
    else:
        where = f"from {low} to {high}"
    if joined.height == worst.height:
        return f"No notable test barrier between the solutions of one LR, {where}"
    peak = worst.sort("barrier").row(-1, named=True)
    return f"No notable test barrier {where}; elsewhere up to {peak['barrier']:.1%}, at {format_lr(peak['plr'])}"


def _range(plrs: pl.Series) -> str:
    return " to ".join(dict.fromkeys((format_lr(plrs[0]), format_lr(plrs[-1]))))


def _words(tables: Tables, data: pl.DataFrame) -> Text:
    seeds = over_seeds(data)["seeds"].quantile(1.0) or 1
    medians = "; medians over seeds" if seeds > 1 else "; one seed"
    arcs = " Dashed: barriers along the great circle." if data["test_barrier_arc"].count() else ""
    return Text(
        heading=basin_in_words(data, table(tables, "regimes")) or "Distance between the solutions of one PLR",
        caption="The angle between the weights and the error barriers on the straight line, between the solutions "
        "fine-tuned with the lowest FLR and with the highest FLR and the averaged one"
        f"{medians}. Solutions with a test barrier up to {DEFAULTS.barrier:.0%} (dotted) count as connected."
        f"{arcs} " + regimes_in_words(regime_bands(tables)),
        alt="Three line charts against the pre-training learning rate: the angle, the train error "
        "barrier and the test error barrier between the solutions fine-tuned with the lowest and "
        "the highest learning rate and the averaged one. Regimes are shaded.",
    )


def geometry_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Angle, train barrier and test barrier between the solutions of each PLR, median over seeds (Fig. 3).

    Barriers along the great circle, where measured, are dashed.

    Args:
        tables: The study's tables; ``pairs``, and ``regimes`` for the shading.
        elr: The LRs are effective ones.

    Raises:
        StudyError: The table ``pairs`` is empty.
    """
    data = controls.chosen_from(geometry_data(tables))
    seed = controls.seed_control(data, "geometry", together="median over seeds")
    pick = alt.selection_point(name="pick", fields=["pair"], bind="legend", toggle="true")
    arcs = [f"{name}_arc" for name in _PANELS if name != "angle" and data[f"{name}_arc"].count()]
    measures = [alt.Tooltip(f"{name}:Q").format(".3f") for name in (*_PANELS, *arcs)]
    colour = alt.Color("pair:N").scale(range=list(theme.STRONG)).sort(None).title(None).legend(orient="bottom")
    base = (
        source(data, by=["pair", "seed"])
        .chart(seed.passes("seed"))
        .encode(
            x=axes.plr_axis(elr=elr),
            color=colour,
            opacity=alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.1)),
            tooltip=[alt.Tooltip("pair:N"), theme.plr_tip(), *measures, alt.Tooltip("seeds:Q")],
        )
    )
    panels: list[alt.LayerChart] = []
    # Without accuracies there are no errors, so no barriers; the angle is always known.
    known = {name: title for name, title in _PANELS.items() if name == "angle" or data[name].count()}
    for i, (name, title) in enumerate(known.items()):
        arc = f"{name}_arc" if f"{name}_arc" in arcs else name
        ends = data.select("seed", low=pl.min_horizontal(name, arc), high=pl.max_horizontal(name, arc))
        scale = controls.scale(over_seeds(ends), ends, ("low", "high"), seed, floor=0.0, height=_HEIGHT)
        y = alt.Y(f"{name}:Q").scale(scale).title(None).axis(format=".1f" if name == "angle" else "~%", tickCount=5)
        line = (
            base.mark_line(clip=True, strokeWidth=2.2, point=alt.OverlayMarkDef(size=30))
            .encode(y=y)
            .add_params(*((pick,) if i == 0 else ()), theme.zoom(name))
        )
        panel = theme.panel(line, tables, width=_WIDTH, height=_HEIGHT).properties(title=title)
        if name == "test_barrier":
            panel += alt.Chart().mark_rule(strokeDash=[2, 3], strokeWidth=1.5).encode(y=alt.datum(DEFAULTS.barrier))
        if arc in arcs:
            panel += base.mark_line(clip=True, strokeWidth=1.4, strokeDash=[4, 3]).encode(y=alt.Y(f"{arc}:Q"))
        panels.append(panel)
    return theme.finish(alt.hconcat(*panels, spacing=14), _words(tables, data), seed.parameter)


def _rank(end: str) -> pl.Expr:
    return pl.col(end).replace_strict(_ENDS, range(3), return_dtype=pl.Int64)


def _pair_name() -> pl.Expr:
    # The pairs of ends (0, 1), (0, 2), (1, 2) have the ranks 0, 1, 2.
    return pl.col("rank").replace_strict(range(3), _PAIR_LABELS, return_dtype=pl.String).alias("pair")
