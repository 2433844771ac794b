"""Charts as files for papers, and the one Vega version that draws them everywhere."""

import re
from functools import cache

import altair as alt
import vl_convert

from lratlas.report.charts import Drawing

_VERSION = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
# Charts are drawn about 700 pixels wide; 497 points are the 6.9 inches of a page's text.
_POINTS_PER_PIXEL = 0.71


def figure_pdf(chart: Drawing) -> bytes:
    """The chart as a PDF for a paper: text stays text, lettering about 8 points, at most 6.9 inches wide."""
    return vl_convert.svg_to_pdf(_shrunk(figure_svg(chart)))


def figure_svg(chart: Drawing) -> str:
    """The chart as an SVG, about 700 pixels wide."""
    return vl_convert.vegalite_to_svg(chart.to_dict(), vl_version=_VERSION)


def _shrunk(svg: str) -> str:
    """The picture with its outer width and height reduced; its view box stays, so that everything scales."""
    head, end, rest = svg.partition(">")
    return re.sub(r' (width|height)="([\d.]+)"', _reduced, head) + end + rest


def _reduced(size: re.Match[str]) -> str:
    return f' {size[1]}="{float(size[2]) * _POINTS_PER_PIXEL:.1f}"'


@cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script without imports, so that a page needs no network."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_VERSION)
