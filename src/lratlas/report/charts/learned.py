"""The charts of learned features and Fourier bands: data and drawing."""

import json
from dataclasses import dataclass, replace

import altair as alt
import polars as pl

from lratlas.data.band_ranges import band_name
from lratlas.errors import StudyError
from lratlas.report import axes, theme
from lratlas.report.charts import controls
from lratlas.report.charts.controls import Control
from lratlas.report.frames import name_models, need, over_seeds, repeat_by_seed, stage_order
from lratlas.report.rows import Source, source
from lratlas.report.theme import Drawing, Text
from lratlas.tables import STAGES, Tables, table
from lratlas.text import format_lr

_MODEL = ("stage", "flr", "count")


def features_data(tables: Tables) -> pl.DataFrame:
    """Single-feature accuracies, sorted per run and then averaged over seeds (Fig. 5 of the paper).

    Args:
        tables: The study's tables; ``features``, and ``runs`` for the test accuracy.

    Returns:
        One row per model, rank and PLR, for all seeds together and then for each seed: ``stage``, ``model``
        (pre-trained; fine-tuned with each FLR; averaged with each k; in this order), ``seed`` (null: the mean over
        seeds), ``rank`` (1 is the best feature of the run; 0 is all features together: the test accuracy), ``plr``,
        ``accuracy``, ``seeds``.

    Raises:
        StudyError: The table ``features`` is empty.
    """
    means = (
        repeat_by_seed(feature_rows(tables))
        .group_by("seed", *_MODEL, "rank", "plr")
        .agg(accuracy=pl.col("accuracy").mean(), seeds=pl.col("one").n_unique())
        .sort("seed", stage_order(), "flr", "count", "rank", "plr")
    )
    return name_models(means).select("stage", "model", "seed", "rank", "plr", "accuracy", "seeds")


def feature_rows(tables: Tables) -> pl.DataFrame:
    """The table of features with the ``rank`` of each within its run, and a row of rank 0 for the test accuracy.

    Args:
        tables: The study's tables; ``features``, and ``runs`` for the test accuracy.

    Raises:
        StudyError: The table ``features`` is empty.
    """
    rank = pl.col("accuracy").rank("ordinal", descending=True).over("run").cast(pl.Int64)
    models = _models(tables, "features")
    tested = table(tables, "runs").select("run", accuracy="test_accuracy").drop_nulls()
    whole = models.drop("accuracy").unique("run").join(tested, on="run").with_columns(rank=pl.lit(0, pl.Int64))
    return pl.concat([models.with_columns(rank=rank), whole], how="diagonal")


def band_rows(tables: Tables) -> pl.DataFrame:
    """The table of bands with the name of each ``band``.

    Args:
        tables: The study's tables; only ``bands`` is read.

    Raises:
        StudyError: The table ``bands`` is empty.
    """
    return _name_bands(_models(tables, "bands"))


def bands_data(tables: Tables) -> pl.DataFrame:
    """Accuracy with each single Fourier band and without it, mean over seeds (Figs. 6 and 7 of the paper).

    Args:
        tables: The study's tables; only ``bands`` is read.

    Returns:
        One row per model, band and PLR, for all seeds together and then for each seed, bands in order of frequency,
        single bands before removed ones: ``stage``, ``model`` (pre-trained; fine-tuned with each FLR; averaged with
        each k; in this order), ``seed`` (null: the mean over seeds), ``kept`` (the band is the only one), ``low``,
        ``high``, ``band`` (its name), ``plr``, ``accuracy``, ``seeds``.

    Raises:
        StudyError: The table ``bands`` is empty.
    """
    means = (
        repeat_by_seed(_models(tables, "bands"))
        .group_by("seed", *_MODEL, "kept", "low", "high", "plr")
        .agg(accuracy=pl.col("accuracy").mean(), seeds=pl.col("one").n_unique())
        .sort("seed", stage_order(), "flr", "count", ~pl.col("kept"), "low", "high", "plr")
    )
    return _name_bands(name_models(means)).select(
        "stage", "model", "seed", "kept", "low", "high", "band", "plr", "accuracy", "seeds"
    )


def _models(tables: Tables, name: str) -> pl.DataFrame:
    """The rows of pre-trained, fine-tuned and averaged models."""
    rows = need(tables, name, name, "accuracy").filter(pl.col("stage").is_in(STAGES))
    if rows.is_empty():
        raise StudyError(f"The {name} chart needs pre-trained, fine-tuned or averaged runs in '{name}'.")
    return rows


def _name_bands(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with the name of each band; the highest band in the table counts as the images' highest."""
    name = pl.struct("low", "high", highest=pl.col("high").max()).map_elements(
        lambda row: band_name(**row), return_dtype=pl.String
    )
    names = rows.select("low", "high").unique().with_columns(band=name)
    return rows.join(names, on=["low", "high"], how="left", maintain_order="left")


_RANKS = ("all features", "best feature of a run", "second", "third", "others")
_RANK_COLOURS = alt.Scale(domain=list(_RANKS), range=[theme.NEUTRAL, *theme.STRONG, theme.NEUTRAL])
_RANK_DASHES = alt.Scale(domain=list(_RANKS), range=[[5, 3], *[[1, 0]] * 4])
_HEIGHT, _SMALL = 270, 115  # pixels, of panels
_KEPT = {True: "band alone, accuracy", False: "without band, accuracy"}


_FEATURES_WORDS = Text(
    heading="Which features were learned",
    caption="Accuracy on test sets with a single informative feature. The features of each run are "
    "sorted from best to worst, then averaged over seeds by rank. One line far above the "
    "others means that runs rely on few features. Dashed: the test accuracy, with all "
    "features.",
    alt="Line charts of the single-feature accuracies against the pre-training learning rate, one "
    "line for each rank from the best feature of a run to the worst, mean over seeds, and a dashed line for the "
    "test accuracy; a panel each for pre-trained, fine-tuned and averaged models. Regimes are shaded.",
)


_LEAD = 0.05  # accuracy by which the best feature leads if it stands out
_BAND_LEAD = 0.02  # and by which the best band leads


def features_in_words(data: pl.DataFrame) -> str:
    """Headline: the PLR at which the best feature of pre-trained models stands out most.

    Args:
        data: Data from `features_data`.
    """
    ranks = over_seeds(data).filter(pl.col("rank").is_in([1, 2]), stage="pretrain")
    first = ranks.sort("rank").group_by("plr").agg(pl.col("accuracy").first(), next=pl.col("accuracy").last())
    if first.is_empty():
        return _FEATURES_WORDS.heading
    top = first.sort(pl.col("accuracy") - pl.col("next"), "plr").row(-1, named=True)
    if top["accuracy"] - top["next"] < _LEAD:
        return "No feature stands out at any LR"
    return f"One feature stands out at {format_lr(top['plr'])}: {top['accuracy']:.0%}, the next {top['next']:.0%}"


def bands_in_words(data: pl.DataFrame, regimes: pl.DataFrame) -> str:
    """Headline: the single band that pre-trained models read best; neutral if the bands show no order.

    Args:
        data: Data from `bands_data`.
        regimes: The table of regimes; PLRs at chance level are left out.
    """
    chance = regimes.filter(regime="3")["plr"]
    alone = over_seeds(data).filter(pl.col("kept"), ~pl.col("plr").is_in(chance.implode()), stage="pretrain")
    best = (
        alone.sort("accuracy", descending=True)
        .group_by("plr")
        .agg(pl.col("band").first(), lead=pl.col("accuracy").first() - pl.col("accuracy").slice(1, 1).first())
        .filter(pl.col("lead") >= _BAND_LEAD)
        .sort("plr")
    )
    parts = best.with_columns(part=pl.col("band").rle_id()).partition_by("part", maintain_order=True)
    if len(parts) == 1:
        return f"Most informative at every LR: band {parts[0]['band'][0]}"
    if len(parts) == 2:
        low, high = parts
        return (
            f"Most informative: band {low['band'][0]} up to {format_lr(low['plr'][-1])}, "
            f"band {high['band'][0]} from {format_lr(high['plr'][0])}"
        )
    return _BANDS_WORDS.heading


def features_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Sorted single-feature accuracies and test accuracy, before and after fine-tuning and averaging (Fig. 5).

    Args:
        tables: The study's tables; ``features``, ``runs`` for the test accuracy, and ``regimes`` for the shading.
        elr: The LRs are effective ones.

    Raises:
        StudyError: The table ``features`` is empty.
    """
    data = controls.chosen_from(features_data(tables))
    kinds = _kinds(data, "features")
    seed = controls.seed_control(data, "features")
    choices = (seed, *(kind.choice for kind in kinds))
    shown = _default_rows(data, kinds)
    scale = controls.scale(shown, data, ("accuracy", "accuracy"), *choices, share=True, height=_HEIGHT)
    packed = _rank_names(data)
    panels = [
        theme.panel(
            _feature_lines(
                packed.chart(seed.passes("seed"), kind.choice.passes("model")),
                axes.plr_axis(elr=elr),
                alt.Y("accuracy:Q").scale(scale).title("accuracy on one feature" if i == 0 else None),
                f"features_{i}",
            ),
            tables,
            width=830 // len(kinds) - 8 * len(kinds),
            height=_HEIGHT,
        ).properties(title=kind.title)
        for i, kind in enumerate(kinds)
    ]
    joined = alt.hconcat(*panels, spacing=14)
    return theme.finish(
        joined, replace(_FEATURES_WORDS, heading=features_in_words(data)), *(one.parameter for one in choices)
    )


_FEATURES_FULL_WORDS = Text(
    heading="Which features were learned, for every FLR and every average",
    caption="As the previous chart, for all models: pre-trained, fine-tuned with each FLR, averaged over each number "
    "of checkpoints (SWA-k).",
    alt="Small line charts of the single-feature accuracies against the pre-training learning rate, sorted within "
    "each run, mean over seeds, with a dashed line for the test accuracy: a panel for pre-trained models, one for "
    "each fine-tuning learning rate, one for each number of averaged checkpoints. Regimes are shaded.",
)


def features_full_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Single-feature accuracies for every FLR and every k side by side, one small panel each, over seeds (Fig. 17).

    Args:
        tables: The study's tables; ``features``, ``runs`` for the test accuracy, and ``regimes`` for the shading.
        elr: The LRs are effective ones.

    Raises:
        StudyError: The table ``features`` is empty.
    """
    data = over_seeds(features_data(tables))
    models = data["model"].unique(maintain_order=True).to_list()
    scale = axes.scale(data, "accuracy", "accuracy", share=True, height=_SMALL)
    columns = theme.columns(len(models), most=5)
    packed = _rank_names(data)
    panels = [
        theme.panel(
            _feature_lines(
                packed.chart(f"datum.model === {json.dumps(model)}"),
                axes.plr_axis(elr=elr).title("PLR (ELR)" if elr else "PLR"),
                alt.Y("accuracy:Q").scale(scale).title("accuracy" if i % columns == 0 else None),
                f"features_full_{i}",
            ),
            tables,
            width=905 // columns - 50,
            height=_SMALL,
            lettering=10,
        ).properties(title=model.rpartition(", ")[2])
        for i, model in enumerate(models)
    ]
    return theme.finish(alt.concat(*panels, columns=columns, spacing=10), _FEATURES_FULL_WORDS)


_BANDS_WORDS = Text(
    heading="Which Fourier bands were learned",
    caption="Test accuracy on images with only one band of frequencies and, if measured, on images "
    "without that band; means over seeds. A band is a range of L1 distances from the zero "
    "frequency: band 0 is the mean colour, the highest bands are the finest detail.",
    alt="Line charts of the test accuracy on filtered images against the pre-training learning rate, one line "
    "for each band of frequencies, mean over seeds; a panel each for pre-trained, fine-tuned and averaged "
    "models, and a second row for images without the band. Regimes are shaded.",
)


def bands_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Accuracy on a single Fourier band, and without it, against PLR, one line per band (Figs. 6, 7).

    Args:
        tables: The study's tables; ``bands``, and ``regimes`` for the shading.
        elr: The LRs are effective ones.

    Raises:
        StudyError: The table ``bands`` is empty.
    """
    data = controls.chosen_from(bands_data(tables))
    kinds, ways = _kinds(data, "bands"), data["kept"].unique(maintain_order=True).to_list()
    seed = controls.seed_control(data, "bands")
    choices = (seed, *(kind.choice for kind in kinds))
    pick = alt.selection_point(name="pick", fields=["band"], bind="legend", toggle="true")
    height, shown = _HEIGHT if len(ways) == 1 else 165, _default_rows(data, kinds)
    scale = controls.scale(shown, data, ("accuracy", "accuracy"), *choices, share=True, height=height)
    names = data.sort("low", "high")["band"].unique(maintain_order=True).to_list()
    packed = source(data.drop("stage", "low", "high"), by=["model", "kept", "band", "seed"])
    panels = [
        theme.panel(
            _band_lines(
                packed.chart(seed.passes("seed"), kind.choice.passes("model"), f"datum.kept === {str(kept).lower()}"),
                names,
                pick,
                elr=elr,
            )
            .encode(
                y=alt.Y("accuracy:Q").scale(scale).axis(format="%").title(_KEPT[kept] if kind is kinds[0] else None)
            )
            .add_params(*((pick,) if (kept, kind) == (ways[0], kinds[0]) else ()), theme.zoom(f"bands_{i}_{kept}")),
            tables,
            width=830 // len(kinds) - 8 * len(kinds),
            height=height,
        ).properties(title=kind.title)
        for kept in ways
        for i, kind in enumerate(kinds)
    ]
    # Not nested rows within a column: Altair would name two panels alike, and Vega would mix up their lines.
    joined = alt.concat(*panels, columns=len(kinds), spacing=14)
    words = replace(_BANDS_WORDS, heading=bands_in_words(data, table(tables, "regimes")))
    return theme.finish(joined, words, *(one.parameter for one in choices))


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """The models of one stage, which share a panel, and the control that selects the visible one."""

    choice: Control

    @property
    def title(self) -> str | alt.Title:
        return self.choice.default if self.choice.fixed else alt.Title(text=alt.expr(self.choice.name))


def _kinds(data: pl.DataFrame, chart: str) -> list[_Kind]:
    """The available kinds of pre-trained, fine-tuned, averaged; initially the lowest FLR and the largest k."""
    models = data.select("stage", "model").unique(maintain_order=True)
    kinds: list[_Kind] = []
    for stage, label, first in (("pretrain", "model", 0), ("finetune", "FLR", 0), ("average", "k", -1)):
        names = models.filter(stage=stage)["model"].to_list()
        if names:
            options = {name: controls.short(name) for name in names}
            kinds.append(_Kind(choice=controls.control(label, chart, options, names[first])))
    return kinds


def _default_rows(data: pl.DataFrame, kinds: list[_Kind]) -> pl.DataFrame:
    """The rows shown initially."""
    return over_seeds(data).filter(pl.col("model").is_in([kind.choice.default for kind in kinds]))


def _rank_names(data: pl.DataFrame) -> Source:
    """The rows with the name of each rank in the legend."""
    named = data.with_columns(feature=pl.col("rank").replace_strict(range(4), _RANKS[:4], default=_RANKS[4]))
    return source(named.drop("stage"), by=["model", "seed", "rank", "feature"])


def _feature_lines(rows: alt.Chart, x: alt.X, y: alt.Y, name: str) -> alt.LayerChart:
    base = rows.encode(x=x, y=y.axis(format="%"))
    legend = alt.Legend(orient="bottom", symbolType="stroke")
    lines = base.mark_line(clip=True).encode(
        detail=alt.Detail("rank:N"),
        color=alt.Color("feature:N").scale(_RANK_COLOURS).title(None).legend(legend),
        strokeDash=alt.StrokeDash("feature:N").scale(_RANK_DASHES).title(None).legend(legend),
        strokeWidth=alt.condition("datum.rank < 4", alt.value(2), alt.value(0.8)),
    )
    values = ["feature:N", "rank:Q", theme.plr_tip(), alt.Tooltip("accuracy:Q").format(theme.PERCENT), "seeds:Q"]
    points = theme.hover(base).encode(tooltip=values)
    return alt.LayerChart(layer=[lines.add_params(theme.zoom(name)), points])


def _band_lines(rows: alt.Chart, names: list[str], pick: alt.Parameter, *, elr: bool) -> alt.Chart:
    """The layers common to the panels of the bands."""
    colours = alt.Scale(domain=names, range=theme.ramp(theme.BAND_RAMP, len(names)))
    return rows.mark_line(clip=True, strokeWidth=1.8, point=alt.OverlayMarkDef(size=20)).encode(
        x=axes.plr_axis(elr=elr),
        color=alt.Color("band:N").scale(colours).title("band").legend(orient="bottom"),
        opacity=alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.1)),
        tooltip=[
            alt.Tooltip("band:N"),
            theme.plr_tip(),
            alt.Tooltip("accuracy:Q").format(theme.PERCENT),
            alt.Tooltip("seeds:Q"),
        ],
    )
