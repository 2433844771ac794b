"""The drawings of what models have learned: single features, and Fourier bands."""

import altair as alt
import polars as pl

from lratlas.report import look
from lratlas.report.data import regime_bands
from lratlas.report.learned_data import bands_data, features_data
from lratlas.report.look import Drawing
from lratlas.report.texts import TEXTS
from lratlas.tables import Tables

_KEPT = {True: "band alone, accuracy", False: "without band, accuracy"}


def features_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Sorted single-feature accuracies against PLR, before and after fine-tuning and averaging (Fig. 5).

    Args:
        tables: The study's tables; ``features``, and ``regimes`` for the shading.
        elr: The LRs are effective ones.

    Raises:
        StudyError: The table ``features`` is empty.
    """
    data, bands = features_data(tables), regime_bands(tables)
    models = data["model"].unique(maintain_order=True).to_list()
    scale = look.scale(data, "accuracy", "accuracy")
    panels = [
        look.panel(
            _feature_lines(data.filter(pl.col("model") == model), elr=elr, scale=scale, number=i),
            bands,
            width=582 // len(models) - 8 * len(models),
        ).properties(title=model)
        for i, model in enumerate(models)
    ]
    return look.finish(alt.hconcat(*panels, spacing=14), TEXTS["features"].alt)


def bands_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Accuracy on one Fourier band alone, and without it, against PLR, one line per band (Figs. 6, 7).

    Args:
        tables: The study's tables; ``bands``, and ``regimes`` for the shading.
        elr: The LRs are effective ones.

    Raises:
        StudyError: The table ``bands`` is empty.
    """
    data, shades = bands_data(tables), regime_bands(tables)
    models = data["model"].unique(maintain_order=True).to_list()
    kinds = data["kept"].unique(maintain_order=True).to_list()
    pick = alt.selection_point(name="pick", fields=["band"], bind="legend", toggle="true")
    base = _band_base(data, pick, elr=elr, room=0.12 * len(kinds))
    lines = [
        base.properties(data=look.inline(data.filter(model=model, kept=kept)), title=model).encode(
            y=base.encoding.y.title(_KEPT[kept] if model == models[0] else None)
        )
        for kept in kinds
        for model in models
    ]
    panels = [
        look.panel(
            chart.add_params(*((pick,) if i == 0 else ()), look.zoom(f"bands_{i}")),
            shades,
            width=582 // len(models) - 8 * len(models),
            height=230 if len(kinds) == 1 else 120,
        )
        for i, chart in enumerate(lines)
    ]
    # Not rows within a column: nested, Altair gives two panels the same name, and Vega the one's lines to the other.
    return look.finish(alt.concat(*panels, columns=len(models), spacing=14), TEXTS["bands"].alt)


def _feature_lines(data: pl.DataFrame, *, elr: bool, scale: alt.Scale, number: int) -> alt.Chart:
    names = ("best feature of a run", "second", "third", "others")
    shown = data.with_columns(feature=pl.col("rank").replace_strict((1, 2, 3), names[:3], default=names[3]))
    colours = alt.Scale(domain=list(names), range=[*look.STRONG, look.NEUTRAL])
    return (
        alt.Chart(look.inline(shown))
        .mark_line(clip=True)
        .encode(
            x=look.plr_axis(elr=elr),
            y=alt.Y("accuracy:Q")
            .scale(scale)
            .title("single-feature accuracy" if number == 0 else None)
            .axis(format="%"),
            detail="rank:N",
            color=alt.Color("feature:N").scale(colours).title(None).legend(orient="bottom"),
            strokeWidth=alt.condition("datum.rank < 4", alt.value(2), alt.value(0.8)),
            tooltip=["rank:Q", look.plr_tip(), alt.Tooltip("accuracy:Q").format(look.PERCENT), "seeds:Q"],
        )
        .add_params(look.zoom(f"features_{number}"))
    )


def _band_base(data: pl.DataFrame, pick: alt.Parameter, *, elr: bool, room: float) -> alt.Chart:
    """What the panels of the bands have in common."""
    names = data.sort("low", "high")["band"].unique(maintain_order=True).to_list()
    colours = alt.Scale(domain=names, range=look.ramp(look.BAND_RAMP, len(names)))
    scale = look.scale(data, "accuracy", "accuracy", room=room)
    return (
        alt.Chart()
        .mark_line(clip=True, strokeWidth=1.8, point=alt.OverlayMarkDef(size=20))
        .encode(
            x=look.plr_axis(elr=elr),
            y=alt.Y("accuracy:Q").scale(scale).axis(format="%"),
            color=alt.Color("band:N").scale(colours).title("band").legend(orient="bottom"),
            opacity=alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.1)),
            tooltip=["band:N", look.plr_tip(), alt.Tooltip("accuracy:Q").format(look.PERCENT), "seeds:Q"],
        )
    )
