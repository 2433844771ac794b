"""Training loss and gradient norm of pre-training: data, drawing and words of the chart."""

import math

import altair as alt
import polars as pl

from lratlas.errors import StudyError
from lratlas.report import axes, theme
from lratlas.report.charts import controls
from lratlas.report.charts.quality import loss_limit
from lratlas.report.frames import need
from lratlas.report.rows import source
from lratlas.report.theme import POINTED, Drawing, Text
from lratlas.tables import Tables, table
from lratlas.text import format_lr

# Enough to show every bend of a curve on a screen, few enough to draw 30 curves at once.
_TRACE_POINTS = 150
# There may be hundreds of single seeds, and the page contains all of them.
_SEED_POINTS = 40
_WIDTH = 350  # pixels, of either panel


def traces_data(tables: Tables) -> pl.DataFrame:
    """Training loss and gradient norm of pre-training against the step, mean over seeds.

    Long traces are thinned to about 150 points, traces of single seeds to about 40: neighbouring rows are averaged and
    placed at their last step. Values that are not finite, or zero (which a log axis cannot show), are null.

    Args:
        tables: The study's tables; ``runs`` and ``traces`` are read.

    Returns:
        One row per PLR and point, for all seeds together and then for each seed: ``seed`` (null: the mean over seeds),
        ``plr``, ``step``, ``train_loss``, ``gradient_norm``.

    Raises:
        StudyError: No pre-training run has a trace.
    """
    runs = need(tables, "runs", "traces").filter(pl.col("stage") == "pretrain").select("run", "plr", "seed")
    rows = need(tables, "traces", "traces").join(runs, on="run")
    if rows.is_empty():
        raise StudyError("The traces chart needs traces of pre-training runs; table 'traces' has none.")
    together = _thin_rows(rows.with_columns(seed=pl.lit(None, pl.Int64)), _TRACE_POINTS)
    return pl.concat([together, _thin_rows(rows, _SEED_POINTS)])


def _thin_rows(rows: pl.DataFrame, points: int) -> pl.DataFrame:
    width = math.ceil(rows["step"].n_unique() / points)
    return (
        rows.with_columns(point=(pl.col("step").rank("dense").cast(pl.Int64) - 1) // width)
        .with_columns(pl.col("step").max().over("point"))
        .group_by("seed", "plr", "step")
        .agg(_drawable("train_loss").mean(), _drawable("gradient_norm").mean())
        .with_columns(_drawable("train_loss"), _drawable("gradient_norm"))
        .sort("seed", "plr", "step")
    )


def course_in_words(boundaries: pl.DataFrame) -> str:
    """Headline: the LRs at which training converges, stays on a plateau and diverges.

    Args:
        boundaries: The table of boundaries.

    Returns:
        The headline; empty if neither boundary was reached.
    """
    ends = {row["boundary"]: row for row in boundaries.drop_nulls("value").to_dicts()}
    converges, diverges = ends.get("convergence"), ends.get("divergence")
    parts = [
        f"converges up to {format_lr(converges['below'])}" if converges else "",
        f"stays on a plateau from {format_lr(converges['above'])}" if converges else "",
        f"diverges from {format_lr(diverges['above'])}" if diverges else "",
    ]
    *first, last = [part for part in parts if part] or [""]
    return f"Training {' and '.join(filter(None, (', '.join(first), last)))}" if last else ""


def _words(tables: Tables, data: pl.DataFrame) -> Text:
    several = data["seed"].drop_nulls().n_unique() > 1
    limit = (
        " Losses above a hundred times the test loss before training are drawn at that height, and their gradient"
        " norms are omitted."
        if math.isfinite(loss_limit(tables)) and (data["train_loss"] >= loss_limit(tables)).any()
        else ""
    )
    return Text(
        heading=course_in_words(table(tables, "boundaries")) or "Training loss and gradient norm during pre-training",
        caption=f"Pre-training, {'mean over seeds' if several else 'one seed'}: a line for each PLR, from yellow for "
        "the smallest to violet for the largest. In regime 1 loss and gradient fall towards zero; in regime 2 they "
        f"settle on a plateau; in regime 3 the loss stays at chance level or above.{limit}",
        alt="Two line charts against the training step: training loss and gradient norm during pre-training on log "
        "axes, one line for each learning rate, from yellow for the smallest learning rate to violet for the largest.",
    )


def traces_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Training loss and gradient norm of pre-training against the step, one line per PLR, mean over seeds.

    Args:
        tables: The study's tables; ``runs`` and ``traces``.
        elr: The LRs are effective ones.

    Raises:
        StudyError: No pre-training run has a trace.
    """
    limit = loss_limit(tables)
    data = controls.chosen_from(traces_data(tables)).with_columns(
        pl.col("train_loss").clip(upper_bound=limit),
        gradient_norm=pl.when((pl.col("train_loss") <= limit).fill_null(value=True)).then("gradient_norm"),
    )
    seed = controls.seed_control(data, "traces")
    rows = source(data, by=["seed", "plr"]).chart(seed.passes("seed"))
    steps = alt.Axis(format="~s", labelExpr="datum.value ? datum.label : '0'", tickCount=5, grid=False)
    x = alt.X("step:Q").axis(steps)
    colour = (
        alt.Color("plr:Q")
        .scale(alt.Scale(type="log", range=list(theme.ORDERED_RAMP), interpolate="lab"))
        .title("PLR (ELR)" if elr else "PLR")
        .legend(format="~e", labelExpr=axes.PLAIN_EXPONENT, tickCount=5, gradientLength=230)
    )
    # Other LRs fade while the reader points at one, here or in another chart.
    is_pointed = f"!({POINTED} > 0) || abs(log(datum.plr / {POINTED})) < 1e-3"
    faint = alt.value(0.12)
    panels: list[alt.LayerChart] = []
    for name, title in (("train_loss", "training loss"), ("gradient_norm", "gradient norm")):
        y = alt.Y(f"{name}:Q").scale(type="log").title(None).axis(axes.power_axis())
        line = rows.mark_line(clip=True, strokeWidth=1.6).encode(
            x=x, y=y, color=colour, detail=alt.Detail("plr:N"), opacity=alt.condition(is_pointed, alt.value(1), faint)
        )
        values = [theme.plr_tip(), "step:Q", alt.Tooltip(f"{name}:Q").title(title).format(".3g")]
        points = theme.hover(rows).encode(x=x, y=y, tooltip=values)
        panel = alt.LayerChart(layer=[line.add_params(theme.zoom(name)), points])
        panels.append(panel.properties(title=title, width=_WIDTH, height=270))
    return theme.finish(alt.hconcat(*panels, spacing=14), _words(tables, data), seed.parameter)


def _drawable(name: str) -> pl.Expr:
    return pl.when(pl.col(name).is_finite() & (pl.col(name) > 0)).then(pl.col(name))
