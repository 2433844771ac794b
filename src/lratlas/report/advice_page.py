"""The page of a search for the initial LR: one HTML file that needs no network, the answer first."""

import io
from collections.abc import Mapping

import polars as pl

from lratlas.report.advice_finish import recipes
from lratlas.report.advice_table import evidence_rows, headings
from lratlas.report.advice_words import advice_text, course_text
from lratlas.report.downloads import packed
from lratlas.report.figures import vega_bundle
from lratlas.report.look import REGIME_COLOURS, Drawing
from lratlas.report.shell import environment, packed_spec, part, policy
from lratlas.search.advice import Advice

METHOD = (
    "Every LR is trained for 1/64 of a full training, with the same initial weights and batches. The better LRs"
    " continue for twice as long each time, ranked by the validation metric of their averaged weights (of the last"
    " ones under a schedule). While no LR has learned anything, none is ranked: they are thinned out evenly.",
    "LRs are compared at one length at a time. A difference counts if it exceeds the noise of the validation set and of"
    " the seed at the level of 5%. Budget above 1.5 buys further seeds of the LRs within the noise, then longer"
    " trainings.",
    "The recommended LR is the mean, over log LR, of the LRs within the noise of the best one at the longest length. It"
    " is then lowered for the part that was not trained. At the ends of the good range, LRs fall behind by more than"
    " noise and tolerance.",
    "The expected metric is a projection, not a measurement: each further doubling of the length is assumed to gain"
    " less than the one before it.",
    "Regimes follow from the training losses of each LR, as in lratlas.watch.",
)
"""How a search decides, in a few sentences."""

REGIME_WORDS: Mapping[str, str] = {
    "converging": "regime 1: the loss falls, or is near zero",
    "equilibrium": "regime 2: the loss is stationary above zero",
    "diverging": "regime 3: the loss is not finite, or nothing was learned",
    "undecided": "too early, too noisy, or no losses are known",
}

_COLOURS = tuple(REGIME_COLOURS[name] for name in ("1", "2", "3", "undecided"))


def advice_page(advice: Advice, charts: Mapping[str, Drawing], *, facts: Mapping[str, str]) -> str:
    """The whole advice as one HTML text, looking like a study's report and as closed to the network.

    Text given here is shown as it is, never read as HTML.

    Args:
        advice: What the search came to.
        charts: ``advice`` and, where LRs continued, ``course``.
        facts: What the search cost and how the page was made, name by name.
    """
    scripts = [vega_bundle(), part("report.js"), part("sort.js")]
    texts = {"advice": advice_text(advice), "course": course_text(advice)}
    headline, *rest = advice.statement.splitlines()
    tables = {"evidence": advice.evidence, "compared": advice.compared}
    regimes = set(advice.evidence["regime"])
    return (
        environment()
        .get_template("advice.html.j2")
        .render(
            headline=headline,
            rest=rest,
            warnings=advice.warnings,
            recipes=recipes(advice),
            figures={name: texts[name] for name in charts},
            specs={name: packed_spec(chart) for name, chart in charts.items()},
            headings=headings(advice),
            rows=evidence_rows(advice),
            regime_words={name: words for name, words in REGIME_WORDS.items() if name in regimes},
            regime_colours=dict(zip(REGIME_WORDS, _COLOURS, strict=True)),
            csvs={name: packed(_csv(frame)) for name, frame in tables.items()},
            method=METHOD,
            facts=facts,
            style=part("report.css"),
            scripts=scripts,
            policy=policy(scripts),
        )
    )


def _csv(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_csv(buffer)
    return buffer.getvalue()
