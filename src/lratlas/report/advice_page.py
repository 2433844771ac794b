"""The page of a search for the initial LR: one HTML file that needs no network, the answer first."""

import io
from collections.abc import Mapping

from lratlas.report.advice_table import HEADINGS, evidence_rows
from lratlas.report.advice_words import advice_text, course_text
from lratlas.report.downloads import packed
from lratlas.report.figures import vega_bundle
from lratlas.report.look import REGIME_COLOURS, Drawing
from lratlas.report.shell import environment, packed_spec, part, policy
from lratlas.search.advice import Advice

METHOD = (
    "All LRs were trained for a small share of a full training, with the same initial weights and batches; the better "
    "ones continued for twice the steps each time, compared by the validation metric of their averaged weights (of the "
    "last ones where no average was told). While no LR had learned anything, none was ranked.",
    "The good range has the LRs that cannot be told from the best one, given the noise of seeds and of the validation "
    "set; the recommended LR is the middle of those, moved for the steps that were not seen.",
    "Regimes follow from the training losses of each LR, as in lratlas.watch; where the search could, it also annealed "
    "the best LR, to see whether that is better than an average, which costs nothing.",
)
"""How a search decides, in three sentences."""

REGIME_WORDS: Mapping[str, str] = {
    "converging": "regime 1: the loss falls, or is near zero",
    "equilibrium": "regime 2: the loss is stationary above zero",
    "diverging": "regime 3: the loss is not finite, or nothing was learned",
    "undecided": "too early, too noisy, or no losses were told",
}

_COLOURS = tuple(REGIME_COLOURS[name] for name in ("1", "2", "3", "undecided"))


def advice_page(advice: Advice, charts: Mapping[str, Drawing], *, facts: Mapping[str, str]) -> str:
    """The whole advice as one HTML text, looking like a study's report and as closed to the network.

    Text given here is shown as it is, never read as HTML.

    Args:
        advice: What the search came to.
        charts: ``advice`` and, where LRs went on, ``course``.
        facts: What the search cost and how the page was made, name by name.
    """
    scripts = [vega_bundle(), part("report.js"), part("sort.js")]
    texts = {"advice": advice_text(advice), "course": course_text(advice)}
    headline, rest = split_statement(advice.statement)
    regimes = set(advice.evidence["regime"])
    return (
        environment()
        .get_template("advice.html.j2")
        .render(
            headline=headline,
            rest=rest,
            warnings=advice.warnings,
            figures={name: texts[name] for name in charts},
            specs={name: packed_spec(chart) for name, chart in charts.items()},
            headings=list(HEADINGS.values()),
            rows=evidence_rows(advice),
            regime_words={name: words for name, words in REGIME_WORDS.items() if name in regimes},
            regime_colours=dict(zip(REGIME_WORDS, _COLOURS, strict=True)),
            csv=packed(_csv(advice)),
            method=METHOD,
            facts=facts,
            style=part("report.css"),
            scripts=scripts,
            policy=policy(scripts),
        )
    )


def split_statement(statement: str) -> tuple[str, str]:
    """The first sentence of a statement as a headline, and the others.

    Example:
        >>> split_statement("Use an LR of 0.1 (good range 0.05 to 0.2). To finish: keep it. It cost 1.")
        ('Use an LR of 0.1 (good range 0.05 to 0.2).', 'To finish: keep it. It cost 1.')
    """
    head, end, rest = statement.partition(". ")
    return (f"{head}.", rest) if end else (statement, "")


def _csv(advice: Advice) -> bytes:
    buffer = io.BytesIO()
    advice.evidence.write_csv(buffer)
    return buffer.getvalue()
