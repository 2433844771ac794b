"""The report of a study: one HTML file that needs no network, the answer first."""

import shlex
from collections.abc import Mapping, Sequence

from lratlas.analysis.recommendation import Recommendation
from lratlas.report.cells import EVIDENCE, boundary_rows, regime_rows, verdict_entries
from lratlas.report.downloads import BUDGET, DIGITS, downloads
from lratlas.report.figures import vega_bundle
from lratlas.report.look import REGIME_COLOURS, Drawing
from lratlas.report.shell import environment, packed_spec, part, policy
from lratlas.report.strip import strip
from lratlas.report.texts import REGIMES, TABLES, TEXTS, VERDICTS, Text
from lratlas.tables import Tables, table


def page(
    *,
    title: str,
    task: str = "",
    progress: str = "",
    recommended: Recommendation | None = None,
    summary: Sequence[str],
    charts: Mapping[str, Drawing],
    tables: Tables,
    facts: Mapping[str, str],
    missing: Mapping[str, str] | None = None,
    folder: str = "FOLDER",
    live: bool = False,
) -> str:
    """The whole report as one HTML text: answer, verdicts, charts, regimes, tables, and how it was made.

    Everything is inside the file, scripts included, and a content policy forbids any request and any script but these.
    Text given here is shown as it is, never read as HTML.

    Args:
        title: The heading of the page.
        task: What was trained on which data, in a line below the heading.
        progress: How far a study is that is not finished; empty for a finished one.
        recommended: The PLRs to use; None where that cannot be told.
        summary: What the study found, in sentences.
        charts: Charts by name, in the order in which they are shown.
        tables: The study's tables, any of them empty; all are offered as CSV, those that fit.
        facts: How the study was made, name by name (spec, versions, command, wall time, data fingerprint).
        missing: For charts that could not be drawn, name by name, the reason.
        folder: The study's folder, for the command that prints a table in full precision.
        live: The page follows the study through the server that it came from; only that may be asked for anything.
    """
    # live.js keeps the page as it came, so it runs before anything is drawn.
    scripts = [vega_bundle(), *([part("live.js")] if live else []), part("report.js")]
    regimes = table(tables, "regimes")
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            task=task,
            progress=progress,
            advice=recommended.statement if recommended else "",
            summary=summary,
            strip=strip(tables, recommended),
            regime_words={name: REGIMES[name] for name in REGIMES if name in set(regimes["regime"])},
            boundaries=boundary_rows(table(tables, "boundaries"), table(tables, "regimes")),
            verdicts=verdict_entries(table(tables, "claims")),
            verdict_words=VERDICTS,
            figures={name: _text(name, chart) for name, chart in charts.items()},
            specs={name: packed_spec(chart) for name, chart in charts.items()},
            missing=_headings(missing or {}),
            evidence=[heading for heading, _ in EVIDENCE.values()],
            regimes=regime_rows(regimes),
            downloads=downloads(tables),
            table_words=TABLES,
            digits=DIGITS,
            budget=BUDGET // 1_000_000,
            command=f"lratlas show {shlex.quote(folder)} TABLE --format csv",
            facts=facts,
            colours=REGIME_COLOURS,
            style=part("report.css"),
            scripts=scripts,
            policy=policy(scripts, live=live),
        )
    )


def _text(name: str, chart: Drawing) -> Text:
    """The words for a chart; one that is not among the known charts is headed by its name."""
    described = chart.description
    alt = described if isinstance(described, str) else name
    return TEXTS.get(name, Text(heading=name.replace("_", " ").replace("-", " ").capitalize(), caption="", alt=alt))


def _headings(missing: Mapping[str, str]) -> dict[str, str]:
    return {TEXTS[name].heading if name in TEXTS else name: reason for name, reason in missing.items()}
