"""The notebook view of a study: the answer, the regimes along the LR, and the main chart."""

import base64
import html

from altair.utils.schemapi import debug_mode

from lratlas.api.report import progress
from lratlas.errors import LRAtlasError
from lratlas.html import answer
from lratlas.report.figures import VERSION, load_converter, with_font
from lratlas.report.page import Strip, strip
from lratlas.report.theme import REGIME_COLOURS, spec_of
from lratlas.results import Results

_MAIN = ("accuracy", "loss")  # charts


def study_html(results: Results) -> str:
    """The answer, the regimes and the main chart as HTML without scripts; the chart needs the extra ``figures``."""
    found = progress(results)
    title = f"{results.spec.name} in {results.folder}{f' ({found})' if found else ''}"
    advised = results.recommendation
    lines = [advised.statement] if advised else results.summary[:1]
    regimes = strip(results.tables, advised)
    return f"{answer(title, lines)}{strip_html(regimes) if regimes else ''}{_chart(results)}"


def strip_html(found: Strip) -> str:
    """The regimes from the lowest to the highest LR, with the recommended LRs above them."""
    parts = "".join(
        f'<span style="{_at(part.start, part.width)}; top: .5rem; height: 1.5rem; line-height: 1.5rem;'
        f" overflow: hidden; text-align: center; background: {REGIME_COLOURS[part.regime]};"
        f' color: {part.ink}">{part.label}</span>'
        for part in found.parts
    )
    mark = found.mark and (
        f'<span style="{_at(found.mark.start, found.mark.width)}; top: 0; height: .3rem; min-width: .3rem;'
        ' background: currentColor"></span>'
    )
    ticks = "".join(
        f'<span style="position: absolute; left: {tick.place}%; top: 2.1rem; transform: translateX(-50%);'
        f' font-size: smaller">{tick.label}</span>'
        for tick in found.ticks
    )
    words = html.escape(found.words)
    return (
        f'<div role="img" aria-label="{words}" title="{words}" style="position: relative; height: 3.5rem;'
        f' max-width: 640px; margin: .5rem 1rem">{mark or ""}{parts}{ticks}</div>'
    )


def _at(start: float, width: float) -> str:
    return f"position: absolute; left: {start}%; width: {width}%"


def _chart(results: Results) -> str:
    """The main chart as a picture; a hint if it cannot be drawn."""
    name = next((name for name in _MAIN if name in results.charts), None)
    if name is None:
        return ""
    try:
        with debug_mode(False):  # Altair's checks take longer than all other work
            chart = results.chart(name)
        svg: str = load_converter().vegalite_to_svg(spec_of(chart), vl_version=VERSION)
    except LRAtlasError as error:
        return f"<div><small>No chart: {html.escape(str(error))}</small></div>"
    source = f"data:image/svg+xml;base64,{base64.b64encode(with_font(svg).encode()).decode()}"
    return f'<img alt="{html.escape(str(chart.description))}" style="background: white" src="{source}">'
