"""The tables of a study: one schema each, the contract between all parts of the package.

Learning rates are effective ones if the task is scale-invariant. Accuracies are in [0, 1], barriers are
differences of error rates, angles are in radians, times in seconds; missing values are null, never NaN.
"""

from collections.abc import Mapping

import polars as pl

from lratlas.measure.builtin import MEASUREMENTS
from lratlas.text import UNSAFE

__all__ = ["SCHEMAS", "empty"]

Tables = Mapping[str, pl.DataFrame]

SCHEMAS: dict[str, pl.Schema] = {
    # One row per finished run. Losses and accuracies are of the whole set, in eval mode, at the end.
    "runs": pl.Schema(
        {
            "run": pl.String,
            "stage": pl.String,  # pretrain, second, finetune, average
            "parent": pl.String,
            "plr": pl.Float64,
            "plr2": pl.Float64,
            "flr": pl.Float64,
            "count": pl.Int64,
            "seed": pl.Int64,
            "data_seed": pl.Int64,
            "steps": pl.Int64,
            "diverged": pl.Boolean,
            "train_loss": pl.Float64,
            "train_accuracy": pl.Float64,
            "test_loss": pl.Float64,
            "test_accuracy": pl.Float64,
            "gradient_norm": pl.Float64,
            "seconds": pl.Float64,
            "start_loss": pl.Float64,  # test loss before the first step; null unless the stage is pretrain
        }
    ),
    # Training columns are means over the mini-batches since the last row; test columns are of the whole test set.
    # chance_accuracy is the accuracy that the same predictions would have under shuffled labels.
    "traces": pl.Schema(
        {
            "run": pl.String,
            "step": pl.Int64,
            "epoch": pl.Float64,
            "train_loss": pl.Float64,
            "train_accuracy": pl.Float64,
            "test_loss": pl.Float64,
            "test_accuracy": pl.Float64,
            "gradient_norm": pl.Float64,
            "weight_norm": pl.Float64,
            "chance_accuracy": pl.Float64,
        }
    ),
    # One row per pre-training LR, with the evidence for its regime over seeds.
    "regimes": pl.Schema(
        {
            "plr": pl.Float64,
            "regime": pl.String,  # 1, 2A, 2B, 2 (2 without barriers), 3, undecided
            "seeds": pl.Int64,
            "diverged": pl.Float64,  # share of seeds
            "train_accuracy": pl.Float64,  # mean over the last quarter of the steps and over seeds
            "chance_accuracy": pl.Float64,
            "above_chance_p": pl.Float64,  # one-sided, across seeds; null for one seed
            "fitted": pl.Float64,  # share of seeds with every training sample fitted at the end
            "train_loss": pl.Float64,  # mean over the last quarter and over seeds
            "falling": pl.Float64,  # share of seeds with a loss that still falls over the last half
            "trend_p": pl.Float64,  # median over seeds of the p value of a falling loss
            "test_accuracy": pl.Float64,
            "barrier": pl.Float64,  # largest of the pairs' medians over seeds, test set
            "spread": pl.Float64,  # of test accuracy between the solutions of the pairs, median over seeds
            "flr_spread": pl.Float64,  # over FLRs, of the mean test accuracy after fine-tuning
            "reason": pl.String,  # why the regime is undecided; null for all others
        }
    ),
    "boundaries": pl.Schema(
        {
            "boundary": pl.String,  # convergence, subregime, divergence
            "below": pl.Float64,
            "above": pl.Float64,
            "value": pl.Float64,
            "low": pl.Float64,
            "high": pl.Float64,
        }
    ),
    **{measurement.table: measurement.schema for measurement in MEASUREMENTS},
    # How unevenly features were learned: means over seeds of measures on the excess over chance.
    "sparsity": pl.Schema(
        {
            "stage": pl.String,
            "plr": pl.Float64,
            "flr": pl.Float64,
            "count": pl.Int64,
            "seeds": pl.Int64,
            "top_accuracy": pl.Float64,  # of each run's best feature
            "rest_accuracy": pl.Float64,
            "gini": pl.Float64,
            "top_share": pl.Float64,
        }
    ),
    # First epoch in which every training sample was classified correctly in its batch; null if there is none.
    "convergence": pl.Schema(
        {
            "plr": pl.Float64,
            "seed": pl.Int64,
            "epochs": pl.Int64,
            "test_accuracy": pl.Float64,  # at the end of that epoch
        }
    ),
    # epochs = scale * (threshold - PLR) ** -exponent, fitted to the table of convergence.
    "power_law": pl.Schema(
        {
            "parameter": pl.String,  # threshold, exponent, scale
            "value": pl.Float64,
            "low": pl.Float64,  # 95% interval; null where there are too few points
            "high": pl.Float64,
        }
    ),
    # Each claim of the paper, judged on this study; names and titles in lratlas.analysis.claims.
    "claims": pl.Schema(
        {
            "claim": pl.String,
            "verdict": pl.String,  # supported, contradicted, inconclusive, not measured
            "effect": pl.Float64,  # null where not measured
            "low": pl.Float64,  # 95% interval over seeds; null for fewer than three
            "high": pl.Float64,
            "statement": pl.String,
        }
    ),
}


def empty(table: str) -> pl.DataFrame:
    """An empty frame with the schema of ``table``."""
    return pl.DataFrame(schema=SCHEMAS[table])


def table(tables: Tables, name: str) -> pl.DataFrame:
    """A table of a study, empty if the study lacks it."""
    return tables[name] if name in tables else empty(name)


def add_missing_columns(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """The rows with the table's missing columns added as null."""
    lacks = {column: kind for column, kind in SCHEMAS[name].items() if column not in frame.columns}
    return frame.with_columns(pl.lit(None, kind).alias(column) for column, kind in lacks.items())


def has_accuracy(runs: pl.DataFrame) -> bool:
    """Whether any run has an accuracy, or there are no runs yet; regression, for example, only has losses."""
    return runs.is_empty() or sum(runs[name].count() for name in ("train_accuracy", "test_accuracy")) > 0


# The stages of runs that tables identify by one PLR.
STAGES = ("pretrain", "finetune", "average")


def finite(models: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """The rows of a table without diverged runs, whose weights are those before the first NaN or Inf."""
    return models.join(runs.filter("diverged"), on="run", how="anti")


_SCORES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def drop_diverged_scores(runs: pl.DataFrame) -> pl.DataFrame:
    """The runs with the scores of diverged ones removed, which are of the weights before the first NaN or Inf."""
    lost = pl.col("diverged").fill_null(value=False)
    return runs.with_columns(pl.when(~lost).then(pl.col(name)).alias(name) for name in _SCORES)


def direct(runs: pl.DataFrame) -> pl.DataFrame:
    """The runs that have no second PLR."""
    return runs.filter(pl.col("plr2").is_null())


def harmless_table(frame: pl.DataFrame) -> pl.DataFrame:
    """The table with `lratlas.text.harmless` text."""
    return frame.with_columns(pl.selectors.string().str.replace_all(UNSAFE, ""))


def csv_text(frame: pl.DataFrame) -> str:
    """A table as CSV, with control characters removed and formulas defused.

    Text that begins like a formula gets a leading apostrophe, so that spreadsheets do not run it.
    """
    text = pl.selectors.string().str.replace(r"^([=+\-@\t\r\n])", "'$1")
    return harmless_table(frame).with_columns(text).write_csv()
