"""The page of a comparison: one HTML file that needs no network, with the table and the chart."""

from collections.abc import Mapping, Sequence

import polars as pl

from lratlas.analysis.comparison import Entry
from lratlas.errors import StudyError
from lratlas.report.bundle import vega_bundle
from lratlas.report.charts.comparison import NOTE, TEXT, comparison_chart, readable, why_left_out
from lratlas.report.shell import compress, environment, pack_spec, part, policy
from lratlas.tables import csv_text


def comparison_page(entries: Sequence[Entry], table: pl.DataFrame, *, facts: Mapping[str, str]) -> str:
    """The whole comparison as one HTML text, with the look and the network isolation of a report.

    All text is escaped, never interpreted as HTML.

    Args:
        entries: The studies, for the chart.
        table: One row per study, from `lratlas.analysis.comparison.comparison`; also offered as CSV.
        facts: The provenance of the page, by name.
    """
    scripts = [vega_bundle(), part("report.js")]
    words = readable(table)
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            studies=words.columns[1:],
            lines=words.rows(),
            note=NOTE,
            text=TEXT,
            spec=_spec(entries),
            missing=list(why_left_out(entries).values()),
            csv=compress(csv_text(table).encode()),
            facts=facts,
            style=part("report.css"),
            scripts=scripts,
            policy=policy(scripts),
        )
    )


def _spec(entries: Sequence[Entry]) -> str:
    """The packed chart; empty if it leaves out all studies."""
    try:
        return pack_spec(comparison_chart(entries))
    except StudyError:
        return ""
