"""The rows of a table inside a chart: as JSON values, and packed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from lratlas.tables import harmless_table

# The value for all seeds together; Vega compares texts, and JSON's null is not one.
EVERY_SEED = "all"


def inline(frame: pl.DataFrame) -> alt.InlineData:
    """The rows of a frame embedded in the chart, floats rounded to six digits, NaN as null (JSON has no NaN)."""
    return alt.InlineData(values=values_of(frame))


def values_of(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as JSON values: floats of six digits, NaN as null, seeds as text."""
    floats = pl.selectors.float()
    rows = harmless_table(frame).with_columns(floats.round_sig_figs(6).fill_nan(None))
    if "seed" in rows.columns:
        rows = rows.with_columns(pl.col("seed").cast(pl.String).fill_null(EVERY_SEED))
    return rows.to_dicts()


@dataclass(frozen=True, kw_only=True)
class Source:
    """Packed rows for a chart that unpacks them.

    Attributes:
        data: JSON with one entry for all rows that agree in the packing columns; the other columns are lists in it.
        lists: The columns that are lists.
    """

    data: alt.InlineData
    lists: tuple[str, ...]

    def chart(self, *tests: str) -> alt.Chart:
        """A chart of the rows that pass all tests.

        Args:
            tests: Vega expressions on the packing columns. They run before rows are unpacked, so only drawn rows cost
                time.
        """
        chart = alt.Chart(self.data)
        for test in tests:
            chart = chart.transform_filter(test)
        return chart.transform_flatten(list(self.lists))


def source(frame: pl.DataFrame, by: Sequence[str]) -> Source:
    """Pack the rows of a frame in their order.

    Args:
        frame: The rows.
        by: The packing columns, which distinguish lines; filters of the chart can use them.
    """
    floats = pl.selectors.float()
    packed = (
        harmless_table(frame)
        .with_columns(floats.round_sig_figs(6).fill_nan(None))
        .group_by(by, maintain_order=True)
        .agg(pl.all())
    )
    # As one text, since Altair copies lists repeatedly, and checks every number in them.
    text = json.dumps(values_of(packed), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Source(
        data=alt.InlineData(values=text, format=alt.JsonDataFormat(type="json")),
        lists=tuple(name for name in frame.columns if name not in by),
    )
