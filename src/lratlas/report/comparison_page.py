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
    """The whole comparison as one HTML text, looking like a report and as closed to the network.

    Text given here is shown as it is, never read as HTML.

    Args:
        entries: The studies, for the chart.
        table: One row per study, from `lratlas.analysis.comparison.comparison`; also offered as CSV.
        facts: How the page was made, name by name.
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
    """The packed chart; empty where all studies are left out of it."""
    try:
        return pack_spec(comparison_chart(entries))
    except StudyError:
        return ""
