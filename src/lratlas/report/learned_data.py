"""What the charts of learned features show: features and Fourier bands of one model of each stage."""

import polars as pl

from lratlas.errors import StudyError
from lratlas.report.rows import lr_column, need, stage_order
from lratlas.tables import STAGES, Tables


def features_data(tables: Tables) -> pl.DataFrame:
    """Single-feature accuracies, sorted per run and then averaged over seeds (Fig. 5 of the paper).

    Args:
        tables: The study's tables; of them only ``features``.

    Returns:
        One row per model, rank and PLR: ``model`` (pre-trained; fine-tuned with the lowest FLR; averaged with
        the largest k), ``rank`` (1 is the best feature of the run), ``plr``, ``accuracy``, ``seeds``.

    Raises:
        StudyError: The table ``features`` is empty.
    """
    rank = pl.col("accuracy").rank("ordinal", descending=True).over("run").cast(pl.Int64)
    return (
        _chosen(tables, "features")
        .with_columns(rank=rank)
        .group_by("stage", "flr", "count", "rank", "plr")
        .agg(accuracy=pl.col("accuracy").mean(), seeds=pl.col("seed").n_unique())
        .sort(stage_order(), "rank", "plr")
        .with_columns(model=_model())
        .select("model", "rank", "plr", "accuracy", "seeds")
    )


def bands_data(tables: Tables) -> pl.DataFrame:
    """Accuracy per Fourier band kept and per band removed, mean over seeds (Figs. 6 and 7 of the paper).

    Args:
        tables: The study's tables; of them only ``bands``.

    Returns:
        One row per model, band and PLR, bands in order of frequency, those kept before those removed: ``model``
        (pre-trained; fine-tuned with the lowest FLR; averaged with the largest k), ``kept``, ``low``, ``high``,
        ``band`` (its name), ``plr``, ``accuracy``, ``seeds``.

    Raises:
        StudyError: The table ``bands`` is empty.
    """
    return (
        _chosen(tables, "bands")
        .group_by("stage", "flr", "count", "kept", "low", "high", "plr")
        .agg(accuracy=pl.col("accuracy").mean(), seeds=pl.col("seed").n_unique())
        .sort(stage_order(), ~pl.col("kept"), "low", "high", "plr")
        .with_columns(model=_model(), band=_band())
        .select("model", "kept", "low", "high", "band", "plr", "accuracy", "seeds")
    )


def _chosen(tables: Tables, name: str) -> pl.DataFrame:
    """The rows of the pre-trained models, those fine-tuned with the lowest FLR, and the longest averages."""
    rows = need(tables, name, name).filter(pl.col("stage").is_in(STAGES))
    chosen = rows.filter(
        (pl.col("stage") == "pretrain")
        | ((pl.col("stage") == "finetune") & (pl.col("flr") == _of("finetune", "flr").min()))
        | ((pl.col("stage") == "average") & (pl.col("count") == _of("average", "count").max()))
    )
    if chosen.is_empty():
        raise StudyError(f"The {name} chart needs pre-trained, fine-tuned or averaged runs in '{name}'.")
    return chosen


def _of(stage: str, column: str) -> pl.Expr:
    return pl.col(column).filter(pl.col("stage") == stage)


def _model() -> pl.Expr:
    return (
        pl.when(pl.col("stage") == "pretrain")
        .then(pl.lit("pre-trained"))
        .when(pl.col("stage") == "finetune")
        .then(pl.lit("fine-tuned, FLR ") + lr_column("flr"))
        .otherwise(pl.lit("averaged, SWA-") + pl.col("count").cast(pl.String))
    )


def _band() -> pl.Expr:
    """The name of each row's band; the highest band in the table is taken as the images' highest."""
    # Here, since it brings PyTorch with it, which no other chart needs.
    from lratlas.data.bands import band_name

    return pl.struct("low", "high", highest=pl.col("high").max()).map_elements(
        lambda row: band_name(**row), return_dtype=pl.String
    )
