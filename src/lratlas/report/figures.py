"""Figures for papers: PDF and SVG with the fonts of the package."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import altair as alt

from lratlas.errors import LRAtlasError, extra
from lratlas.notices import LOG, warn_on_failure
from lratlas.report.theme import Drawing, spec_of

FAMILY = "Arimo"
_FOLDER = Path(__file__).with_name("fonts")
_WEIGHTS = {"normal": "Arimo-Regular.ttf", "bold": "Arimo-Bold.ttf"}


def load_converter() -> ModuleType:
    """Load vl-convert, which draws figures, with the font of the package.

    Raises:
        MissingLibrary: The extra ``figures`` is not installed.
        LRAtlasError: The address space is limited, so vl-convert would end the process.
    """
    if _space_is_limited():
        raise LRAtlasError("vl-convert, which draws them, needs 80 GiB of address space (ulimit -v).")
    with extra("figures"):
        import vl_convert
    _register_font()
    return vl_convert


_NEEDED_SPACE = 80 * 2**30  # bytes of address space, hardly used: 65 * 2**30 were observed


def _space_is_limited() -> bool:
    with suppress(ImportError):  # only Unix has it
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        return limit != resource.RLIM_INFINITY and limit < _NEEDED_SPACE
    return False


@cache
def _register_font() -> None:
    import vl_convert

    vl_convert.register_font_directory(str(_FOLDER))  # once per process


def with_font(svg: str) -> str:
    """The picture with the font embedded, so that it needs no installed font.

    Args:
        svg: The picture from vl-convert.

    Returns:
        The picture with a style of one ``@font-face`` for each font weight in it.
    """
    used = [weight for weight in _WEIGHTS if weight == "normal" or f'font-weight="{weight}"' in svg]
    head, end, rest = svg.partition(">")
    return f"{head}{end}<style>{''.join(_face(weight) for weight in used)}</style>{rest}"


@cache
def _face(weight: str) -> str:
    font = base64.b64encode((_FOLDER / _WEIGHTS[weight]).read_bytes()).decode()
    return (
        f"@font-face{{font-family:{FAMILY};font-weight:{weight};"
        f"src:url(data:font/ttf;base64,{font}) format('truetype')}}"
    )


# Widths of figures, in points of 1/72 inch.
COLUMN, PAGE = 3.25 * 72, 6.75 * 72

_DOTS = 300  # per inch, of bitmaps
VERSION = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
# Width in pixels of a chart of one panel, chosen so that its lettering is as large as in the others.
_PIXELS = 340
_PAGE_PIXELS = 780  # of several panels
_LETTERING = {"labelFontSize": 10, "titleFontSize": 11}

_PANELS = {"hconcat", "vconcat", "concat"}

Spec = dict[str, Any]


def figure_pdf(chart: Drawing | Spec) -> bytes:
    """The chart as a PDF for a paper, one column wide (3.25 in) or, with several panels, two (6.75 in).

    Text stays text, and its font is embedded.
    """
    return load_converter().svg_to_pdf(_paper_sized(chart, unit=""))


def figure_svg(chart: Drawing | Spec, *, page: bool = False) -> str:
    """The chart as an SVG with its font embedded; it scales to any width.

    Args:
        chart: The chart.
        page: Whether to draw a chart of one panel as wide as a page.
    """
    if page:
        spec = chart if isinstance(chart, dict) else spec_of(chart)
        return with_font(_scale_svg(_render(_still(spec)), PAGE, "pt"))
    return with_font(_paper_sized(chart, unit="pt"))


def figure_png(chart: Drawing | Spec) -> bytes:
    """The chart as a PNG of 300 dots per inch."""
    return load_converter().svg_to_png(_paper_sized(chart, unit=""), ppi=_DOTS)


def figure_files(charts: Mapping[str, Drawing]) -> Iterator[tuple[str, bytes]]:
    """Each chart as PDF and SVG, by file name; none, and a warning, if they cannot be drawn."""
    try:
        load_converter()
    except LRAtlasError as error:
        LOG.warning("No PDF and SVG figures are written: %s", error)
        return
    for name, chart in charts.items():
        files = list[tuple[str, bytes]]()
        with warn_on_failure(f"The figure {name} is left out"):
            spec = spec_of(chart)  # once for both
            files = [(f"{name}.pdf", figure_pdf(spec)), (f"{name}.svg", figure_svg(spec).encode())]
        yield from files


def _paper_sized(chart: Drawing | Spec, *, unit: str) -> str:
    spec = chart if isinstance(chart, dict) else spec_of(chart)
    return _scale_svg(_picture(json.dumps(spec)), PAGE if _PANELS & spec.keys() else COLUMN, unit)


# A chart's PDF, SVG and PNG are drawn one after another.
@lru_cache(maxsize=1)
def _picture(text: str) -> str:
    spec = _still(json.loads(text))
    for name in _PANELS & spec.keys():
        return _render(_squeeze(spec, name))
    return _narrow(spec)


def _render(spec: Spec) -> str:
    return load_converter().vegalite_to_svg(spec, vl_version=VERSION)


def _still(view: Spec) -> Spec:
    """The specification without the invisible marks that only serve the pointer."""
    parts = {
        key: [_still(part) for part in view[key] if not _is_invisible(part)]
        for key in ("layer", *_PANELS)
        if key in view
    }
    return view | parts


def _is_invisible(view: Spec) -> bool:
    mark = view.get("mark")
    return isinstance(mark, dict) and mark.get("opacity") == 0  # pyright: ignore[reportUnknownMemberType]


def _narrow(spec: Spec) -> str:
    """A picture of one panel with the legend below it, in as many columns as fit."""
    config: Spec = spec["config"]
    below = {"orient": "bottom", "columns": 1, "columnPadding": 7, "rowPadding": 1, "offset": 8}
    legend: Spec = config["legend"] | _LETTERING | below
    narrow: Spec = spec | {"config": config | {"axis": config["axis"] | _LETTERING, "legend": legend}}
    margin = _size(_render(narrow))[0] - narrow["width"]
    narrow["width"], old = round(_PIXELS - margin), narrow["width"]
    narrow["height"] = round(narrow["height"] * max(narrow["width"] / old, 0.62))
    least = svg = _render(narrow)
    for columns in (2, 3, 4):
        legend["columns"] = columns
        wider = _render(narrow)
        if _size(wider)[0] > _size(least)[0]:
            break
        svg = wider
    return svg


def _squeeze(spec: Spec, name: str) -> Spec:
    """Panels narrower than on a screen, so that their lettering is readable on paper."""
    panels: list[Spec] = spec[name]
    excess = _size(_render(spec))[0] - _PAGE_PIXELS
    if excess <= 0 or any(_is_image(panel) for panel in panels):
        return spec
    row = sum(panel["width"] for panel in panels[: spec.get("columns", len(panels))])
    factor = max(1 - excess / row, 0.5)
    return spec | {name: [panel | {"width": round(factor * panel["width"])} for panel in panels]}


def _is_image(panel: Spec) -> bool:
    mark = panel.get("mark")
    return isinstance(mark, dict) and mark.get("type") == "image"  # pyright: ignore[reportUnknownMemberType]


def _size(svg: str) -> tuple[float, float]:
    width, height = (re.search(rf' {side}="([\d.]+)"', svg) for side in ("width", "height"))
    if width is None or height is None:
        raise ValueError("vl-convert drew an SVG without a width and a height.")
    return float(width[1]), float(height[1])


def _scale_svg(svg: str, width: float, unit: str) -> str:
    """The picture with another outer width; its view box is unchanged, so everything scales."""
    old_width, old_height = _size(svg)
    sizes = {"width": width, "height": old_height * width / old_width}
    head, end, rest = svg.partition(">")
    for side, size in sizes.items():
        head = re.sub(rf' {side}="[\d.]+"', f' {side}="{size:.2f}{unit}"', head, count=1)
    return head + end + rest
