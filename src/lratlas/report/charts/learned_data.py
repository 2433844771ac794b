"""What the charts of learned features show: features and Fourier bands of each kind of model."""

import polars as pl

from lratlas.data.band_ranges import band_name
from lratlas.errors import StudyError
from lratlas.report.frames import name_models, need, repeat_by_seed, stage_order
from lratlas.tables import STAGES, Tables, table

_MODEL = ("stage", "flr", "count")


def features_data(tables: Tables) -> pl.DataFrame:
    """Single-feature accuracies, sorted per run and then averaged over seeds (Fig. 5 of the paper).

    Args:
        tables: The study's tables; ``features``, and ``runs`` for the test accuracy.

    Returns:
        One row per model, rank and PLR, for all seeds together and then for each: ``stage``, ``model`` (pre-trained;
        fine-tuned with each FLR; averaged with each k; in this order), ``seed`` (null: the mean over seeds), ``rank``
        (1 is the best feature of the run; 0 stands for all features together: the test accuracy), ``plr``,
        ``accuracy``, ``seeds``.

    Raises:
        StudyError: The table ``features`` is empty.
    """
    rank = pl.col("accuracy").rank("ordinal", descending=True).over("run").cast(pl.Int64)
    models = _models(tables, "features")
    tested = table(tables, "runs").select("run", accuracy="test_accuracy").drop_nulls()
    whole = models.drop("accuracy").unique("run").join(tested, on="run").with_columns(rank=pl.lit(0, pl.Int64))
    means = (
        repeat_by_seed(pl.concat([models.with_columns(rank=rank), whole], how="diagonal"))
        .group_by("seed", *_MODEL, "rank", "plr")
        .agg(accuracy=pl.col("accuracy").mean(), seeds=pl.col("one").n_unique())
        .sort("seed", stage_order(), "flr", "count", "rank", "plr")
    )
    return name_models(means).select("stage", "model", "seed", "rank", "plr", "accuracy", "seeds")


def bands_data(tables: Tables) -> pl.DataFrame:
    """Accuracy per Fourier band kept and per band removed, mean over seeds (Figs. 6 and 7 of the paper).

    Args:
        tables: The study's tables; of them only ``bands``.

    Returns:
        One row per model, band and PLR, for all seeds together and then for each, bands in order of frequency, those
        kept before those removed: ``stage``, ``model`` (pre-trained; fine-tuned with each FLR; averaged with each k; in
        this order), ``seed`` (null: the mean over seeds), ``kept``, ``low``, ``high``, ``band`` (its name), ``plr``,
        ``accuracy``, ``seeds``.

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
    """With the name of each row's band; the highest band in the table is taken as the images' highest."""
    name = pl.struct("low", "high", highest=pl.col("high").max()).map_elements(
        lambda row: band_name(**row), return_dtype=pl.String
    )
    names = rows.select("low", "high").unique().with_columns(band=name)
    return rows.join(names, on=["low", "high"], how="left", maintain_order="left")
