"""The rows of a chart inside it, compact: one entry for a whole line, its values in lists."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

# What stands for all seeds together; Vega compares texts, and JSON's null is not one.
EVERY_SEED = "all"


def values_of(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as JSON can hold them: floats of six digits, NaN made null, seeds as text."""
    floats = pl.selectors.float()
    rows = frame.with_columns(floats.round_sig_figs(6).fill_nan(None))
    if "seed" in rows.columns:
        rows = rows.with_columns(pl.col("seed").cast(pl.String).fill_null(EVERY_SEED))
    return rows.to_dicts()


@dataclass(frozen=True, kw_only=True)
class Source:
    """Packed rows and how a chart unpacks them.

    Attributes:
        data: As JSON, one entry for all rows that agree in the columns packed by; the other columns are lists in it.
        lists: The columns that are lists.
    """

    data: alt.InlineData
    lists: tuple[str, ...]

    def chart(self, *tests: str) -> alt.Chart:
        """A chart of the rows that pass.

        Args:
            tests: Vega expressions on the columns packed by. Rows are unpacked after them: however many there are, only
                those that are drawn cost time.
        """
        chart = alt.Chart(self.data)
        for test in tests:
            chart = chart.transform_filter(test)
        return chart.transform_flatten(list(self.lists))


def source(frame: pl.DataFrame, by: Sequence[str]) -> Source:
    """Pack the rows of a frame, order kept.

    Args:
        frame: The rows.
        by: The columns that tell lines apart, which filters of the chart may ask about.
    """
    floats = pl.selectors.float()
    packed = frame.with_columns(floats.round_sig_figs(6).fill_nan(None)).group_by(by, maintain_order=True).agg(pl.all())
    # As one text: Altair copies lists again and again, and checks every number in them.
    text = json.dumps(values_of(packed), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Source(
        data=alt.InlineData(values=text, format=alt.JsonDataFormat(type="json")),
        lists=tuple(name for name in frame.columns if name not in by),
    )
