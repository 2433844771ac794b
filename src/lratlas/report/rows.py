"""Rows of the tables as charts need them: present, in order, and with names for people."""

import polars as pl

from lratlas.analysis.wording import format_lr
from lratlas.errors import StudyError
from lratlas.tables import STAGES, Tables, empty


def lr_text(lr: float) -> str:
    """A learning rate in short scientific notation, three significant digits at most.

    >>> lr_text(0.0001), lr_text(0.0075), lr_text(10**-4.5)
    ('1e-4', '7.5e-3', '3.16e-5')
    """
    return format_lr(lr, digits=3)


def lr_column(name: str) -> pl.Expr:
    """A column of learning rates as text, each as `lr_text` writes it."""
    return pl.col(name).map_elements(lr_text, return_dtype=pl.String)


def table(tables: Tables, name: str) -> pl.DataFrame:
    """A table, empty where the study has none of that name."""
    return tables.get(name, empty(name))


def need(tables: Tables, name: str, chart: str) -> pl.DataFrame:
    """A table that a chart cannot be drawn without.

    Raises:
        StudyError: It is empty.
    """
    found = table(tables, name)
    if found.is_empty():
        raise StudyError(f"The {chart} chart needs rows in table '{name}', which is empty.")
    return found


def stage_order() -> pl.Expr:
    """The place of each row's stage in a legend: pre-training, fine-tuning, averaging."""
    return pl.col("stage").replace_strict(STAGES, range(3), return_dtype=pl.Int64)
