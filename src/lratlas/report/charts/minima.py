"""The charts of minima: two-stage training, filter norms, sharpness and test error; data and drawing."""

import json
import math
from dataclasses import replace
from typing import Any

import altair as alt
import polars as pl

from lratlas.analysis.minima import ALL, STATES, at_equal_loss, norm_spread, pool_norms, two_stages
from lratlas.errors import StudyError
from lratlas.report import axes, theme
from lratlas.report.axes import log_axis
from lratlas.report.charts import controls
from lratlas.report.charts.controls import Control
from lratlas.report.frames import lr_column, lr_text, name_models, need, over_seeds, repeat_by_seed, stage_order
from lratlas.report.rows import source
from lratlas.report.theme import Drawing, Text
from lratlas.tables import Tables, finite, table

_BINS = 40
# Candidate widths of bins, in decades; the chart of norms uses the narrowest that needs 40 bins or fewer.
_WIDTHS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_ARROW = " → "
_MODEL_NAMES = {"pretrain": "pre-trained", "finetune": "fine-tuned", "average": "averaged"}
_SHARPNESS_COLUMNS = ("top_eigenvalue", "trace", "gradient_norm", "test_error", "train_loss")
WAY_NAMES = {"high": "high PLR → FLR", "low": "low PLR → FLR", "both": "high PLR → low PLR → FLR"}


def two_stages_data(tables: Tables) -> pl.DataFrame:
    """Test accuracy after two stages and after either single one (Fig. 12 of the paper).

    Args:
        tables: The study's tables; only ``runs`` is read.

    Returns:
        One row per pair of PLRs, FLR and way, for all seeds together and then for each seed: ``pair`` and ``name``
        (in words, such as ``1e-2 → 1e-3 → 1e-5``), ``seed`` (null: over seeds), ``plr``, ``plr2``, ``flr``, ``way``
        (``high``, ``low``, ``both``), ``mean``, ``low`` and ``high`` (mean ∓ standard deviation over seeds; equal
        to the mean for one seed), ``seeds``.

    Raises:
        StudyError: No model was fine-tuned after a second PLR, or none has a test accuracy.
    """
    rows = two_stages(need(tables, "runs", "two_stages"))
    if rows.is_empty():
        raise StudyError("The two_stages chart needs test accuracies of runs fine-tuned after a second PLR in 'runs'.")
    mean, deviation = pl.col("test_accuracy").mean(), pl.col("test_accuracy").std().fill_null(0.0)
    means = (
        repeat_by_seed(rows)
        .group_by("seed", "plr", "plr2", "flr", "way")
        .agg(mean=mean, low=mean - deviation, high=mean + deviation, seeds=pl.col("one").n_unique().cast(pl.Int64))
        .sort("seed", "plr", "plr2", "flr", "way")
    )
    high, low, flr = lr_column("plr"), lr_column("plr2"), lr_column("flr")
    names = pl.concat_str(
        pl.when(pl.col("way") != "low").then(high + _ARROW).otherwise(pl.lit("")),
        pl.when(pl.col("way") != "high").then(low + _ARROW).otherwise(pl.lit("")),
        flr,
    )
    return means.select(
        (high + _ARROW + low).alias("pair"),
        names.alias("name"),
        *("seed", "plr", "plr2", "flr"),
        pl.col("way").cast(pl.String),
        *("mean", "low", "high", "seeds"),
    )


def norms_data(tables: Tables) -> pl.DataFrame:
    """Distributions of the filters' norms over the total norm, per regime and state of training (Fig. 13).

    Args:
        tables: The study's tables; ``norms``, and ``regimes`` (may be empty: then all PLRs are together).

    Returns:
        One row per regime, state and bin, in order, for all seeds together and then for each seed: ``regime`` (``all``
        without regimes), ``state``, ``seed`` (null: the filters of all seeds), ``flr``, ``log_norm`` (middle of the
        bin, decades), ``share`` (of the filters in the bin; an empty bin at either end), ``spread`` (between the 5%
        and 95% quantiles, decades), ``filters``. The PLRs of a regime are pooled.

    Raises:
        StudyError: The table ``norms`` is empty, or has no norm above zero of a trained model.
    """
    norms = need(tables, "norms", "norms")
    pooled = pool_norms(tables)
    if pooled.is_empty():
        raise StudyError("The norms chart needs norms above zero of pre-trained or fine-tuned models in 'norms'.")
    width = _bin_width(pooled["log_norm"])
    others = {name: table(tables, name) for name in ("runs", "regimes")}
    alone = {seed: pool_norms({**others, "norms": norms.filter(seed=seed)}) for seed in norms["seed"].unique().sort()}
    return pl.concat(_histograms(part, width, seed) for seed, part in ({None: pooled} | alone).items())


def _histograms(pooled: pl.DataFrame, width: float, seed: int | None) -> pl.DataFrame:
    """The filters of each regime and state counted in bins."""
    counted = (
        pooled.with_columns(bin=(pl.col("log_norm") / width).floor().cast(pl.Int64))
        .group_by("regime", "state", "bin")
        .agg(count=pl.len())
    )
    bins = counted.group_by("regime", "state").agg(bin=pl.int_ranges(pl.col("bin").min() - 1, pl.col("bin").max() + 2))
    return (
        bins.explode("bin")
        .join(counted, on=["regime", "state", "bin"], how="left")
        .join(norm_spread(pooled), on=["regime", "state"])
        .sort("regime", "state", "bin")
        .select(
            pl.col("regime").cast(pl.String),
            pl.col("state").cast(pl.String),
            pl.lit(seed, pl.Int64).alias("seed"),
            "flr",
            log_norm=(pl.col("bin") + 0.5) * width,
            share=pl.col("count").fill_null(0) / pl.col("filters"),
            spread="spread",
            filters="filters",
        )
    )


def sharpness_data(tables: Tables, *, at_loss: float | None = None) -> pl.DataFrame:
    """Test error and sharpness of the models of about equal training loss (Fig. 26 of the paper).

    Args:
        tables: The study's tables; ``sharpness``, and ``regimes`` (may be empty).
        at_loss: The training loss; by default the level chosen by `lratlas.analysis.minima.at_equal_loss`, at which
            most PLRs have a model.

    Returns:
        One row per model, for all seeds together and then for each seed, sorted by stage, FLR, k and PLR: ``kind``
        (pre-trained, fine-tuned, averaged), ``model`` (with its FLR or k), ``seed`` (null: over seeds), ``plr``,
        ``flr``, ``count``, ``top_eigenvalue``, ``trace``, ``gradient_norm``, ``test_error``, ``train_loss`` (means
        over seeds), ``residual`` of the eigenvalue (the largest over seeds), ``converged`` (in every seed),
        ``seeds``, ``level`` (the target training loss). Means over seeds select the models: the model of a single
        seed may have another loss.

    Raises:
        StudyError: The table ``sharpness`` has no model with a loss above zero, or none near the given loss.
    """
    rows = finite(need(tables, "sharpness", "sharpness", "test_error"), table(tables, "runs"))
    together = at_equal_loss(tables, at_loss=at_loss)
    if together.is_empty():
        raise StudyError("The sharpness chart needs models with a training loss above zero in 'sharpness'.")
    keys = ["stage", "plr", "flr", "count"]
    alone = rows.join(together.select(*keys, "level"), on=keys, nulls_equal=True).with_columns(
        pl.col(_SHARPNESS_COLUMNS).fill_nan(None), pl.col("converged").fill_null(value=False), seeds=pl.lit(1, pl.Int64)
    )
    columns = ("seed", *keys, *_SHARPNESS_COLUMNS, "residual", "converged", "seeds", "level")
    both = pl.concat([together.with_columns(seed=pl.lit(None, pl.Int64)).select(columns), alone.select(columns)])
    return name_models(both.sort("seed", stage_order(), "flr", "count", "plr")).select(
        pl.col("stage").replace_strict(_MODEL_NAMES, return_dtype=pl.String).alias("kind"),
        "model",
        *columns[:1],
        *columns[2:],
    )


def _bin_width(values: pl.Series) -> float:
    low, high = values.quantile(0.0), values.quantile(1.0)
    decades = 0.0 if low is None or high is None else high - low
    return next((width for width in _WIDTHS if width * _BINS >= decades), math.ceil(decades) / _BINS)


_WAY_COLOURS = alt.Scale(domain=list(WAY_NAMES.values()), range=[theme.NEUTRAL, theme.STRONG[1], theme.STRONG[0]])
_STATE_COLOURS = alt.Scale(domain=list(STATES), range=[theme.NEUTRAL, theme.STRONG[1], theme.STRONG[0]])
# pixels, including the gap; narrower bars have no room for their numbers
_NUMBERED = 28
_SHAPES = alt.Scale(domain=["pre-trained", "fine-tuned", "averaged"], range=["circle", "triangle-up", "square"])
_PLAIN = {"type": "linear", "zero": False, "nice": True}
_SHARPNESS = {
    "top_eigenvalue": "top Hessian eigenvalue",
    "trace": "Hessian trace",
    "gradient_norm": "gradient norm",
}


_TWO_STAGES_WORDS = Text(
    heading="Two stages against one",
    caption="Test accuracy after fine-tuning with each FLR: directly from the higher PLR, directly "
    "from the lower PLR, and from the higher PLR via the lower one. Mean over seeds ± one "
    "standard deviation. If the third bar is as high as the second, the "
    "higher PLR has no lasting effect.",
    alt="Bar charts of the mean test accuracy after fine-tuning, a panel for each pair of pre-training learning "
    "rates, a group of three bars for each fine-tuning learning rate: from the higher one, from the lower one, and "
    "from the higher one via the lower one.",
)


def two_stages_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Test accuracy after two stages next to the direct ways, a panel per pair of PLRs, a group per FLR (Fig. 12).

    Args:
        tables: The study's tables; only ``runs`` is read.
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
    width, height = 830 // columns - 10 * columns, 250 if len(pairs) <= 3 else 105
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
    return theme.finish(alt.concat(*panels, columns=columns, spacing=14), _TWO_STAGES_WORDS, seed.parameter)


_NORMS_WORDS = Text(
    heading="Spread of the norms of the filters",
    caption="Histograms of the norms of the output filters, relative to the norm of all trained weights: "
    "before training, after pre-training, and after fine-tuning with the lowest FLR. All "
    "PLRs and seeds of a regime are pooled; filters of norm zero are left out.",
    alt="Histograms of the logarithm of the filters' norms, a panel for each regime, with an outline each for the "
    "models before training, after pre-training and after fine-tuning.",
)


def norms_in_words(data: pl.DataFrame) -> str:
    """Headline: the regime in which pre-training spreads the norms the most.

    Args:
        data: Data from `norms_data`.
    """
    spreads = over_seeds(data).unique(["regime", "state"])
    before, after = (spreads.filter(state=state).sort("spread", "regime") for state in STATES[:2])
    if before.is_empty() or after["regime"].n_unique() < 2:
        return _NORMS_WORDS.heading
    most = after.row(-1, named=True)
    name = "undecided PLRs" if most["regime"] == "undecided" else f"regime {most['regime']}"
    now, then = most["spread"], before["spread"][-1]
    return f"Norms of filters spread most in {name}: 90% span {now:.1f} decades, {then:.1f} before training"


def norms_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Distribution of the filters' norms before and after training, a panel per regime (Fig. 13).

    Args:
        tables: The study's tables; ``norms`` and ``regimes``.
        elr: Unused, since no LR is on an axis.

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
            width=840 // columns - 16 * columns,
            height=(280 - 30 * (rows - 1)) // rows,
        )
        for i, regime in enumerate(regimes)
    ]
    words = replace(_NORMS_WORDS, heading=norms_in_words(data))
    return theme.finish(alt.concat(*panels, columns=columns, spacing=14), words, seed.parameter)


_SHARPNESS_WORDS = Text(
    heading="Sharpness and test error at equal training loss",
    caption="A mark for each model, mean over seeds, whose training loss is within a factor of 1.5 "
    "of the stated loss; by default, most PLRs have a model at that loss. The charts show "
    "the test error against the top eigenvalue and the trace of the Hessian, and the mean "
    "norm of mini-batch gradients. Hollow: the eigenvalue did not converge. Pre-trained "
    "models of regime 3 are left out, since they are not at a minimum.",
    alt="Three scatter plots of the test error of models of about equal training loss: against the top eigenvalue "
    "of the Hessian, its trace, and the gradient norm, a mark for each model, coloured by pre-training learning "
    "rate.",
)


def sharpness_chart(tables: Tables, *, at_loss: float | None = None, elr: bool = False) -> Drawing:
    """Test error against sharpness among models of about equal training loss, a panel per measure (Fig. 26).

    Args:
        tables: The study's tables; ``sharpness`` and ``regimes``.
        at_loss: The training loss; by default the loss at which most PLRs have a model.
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
        .properties(width=212, height=250)
        for i, name in enumerate(_SHARPNESS)
    ]
    level = data["level"][0]
    joined = alt.hconcat(*panels, spacing=14, title=f"at a training loss of about {level:.2g}")
    return theme.finish(joined, _SHARPNESS_WORDS, seed.parameter, flr.parameter, count.parameter)


def _bars(
    rows: alt.Chart, pick: alt.Parameter, scale: alt.Scale, *, elr: bool, first: bool, numbered: bool
) -> alt.LayerChart:
    """The bars of one pair of PLRs with their deviations and, if there is room, their numbers in percent."""
    ways = list(WAY_NAMES.values())
    base = rows.encode(
        x=alt.X("flr:N")
        .sort(None)
        .title("fine-tuning LR (ELR)" if elr else "fine-tuning LR")
        .axis(labelAngle=0, labelOverlap="greedy", labelFontSize=10),
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
    numbers = base.mark_text(dy=-5, fontSize=10, baseline="bottom").encode(
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
    """Test error against one measure, hollow if the eigenvalue did not converge."""
    lowest, highest = _range(over_seeds(data)[name])
    log = bool((data[name] > 0).all())
    x = alt.X(f"{name}:Q").scale(_room(data, name, seed, **({"type": "log", "nice": False} if log else _PLAIN)))
    plrs = alt.Scale(
        type="log",
        range=list(theme.ORDERED_RAMP),
        interpolate="lab",
        domain=[data["plr"].quantile(0.0), data["plr"].quantile(1.0)],
    )
    legend = alt.Legend(format="~e", labelExpr=axes.PLAIN_EXPONENT, tickCount=5, gradientLength=130)
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
    # Only the eigenvalue comes from an iteration.
    may_fail = name == "top_eigenvalue" and not data["converged"].all()
    full = base.transform_filter("datum.converged") if may_fail else base
    # Not by an encoding: outlines next to filled marks would turn the colour legend into a list.
    outline = alt.expr("scale('color', datum.plr)")
    hollow = base.transform_filter("!datum.converged").mark_point(
        filled=False, size=50, strokeWidth=1.8, stroke=outline
    )
    filled = full.mark_point(filled=True, size=56, opacity=0.9).encode(color=colour)
    return alt.LayerChart(layer=[filled, *([hollow] if may_fail else [])])


def _range(values: pl.Series) -> tuple[float, float]:
    return values.quantile(0.0) or 0.0, values.quantile(1.0) or 0.0


def _room(data: pl.DataFrame, name: str, seed: Control, **more: Any) -> alt.Scale:
    """The scale of all models over seeds or, once the reader chooses a seed, of all models of all seeds."""
    low, high = (
        controls.either(first, later, seed)
        for first, later in zip(_range(over_seeds(data)[name]), _range(data[name]), strict=True)
    )
    return alt.Scale(domain=[low, high], padding=8, **more)
