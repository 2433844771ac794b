"""The regimes along the learning rates as one coloured strip, the page's answer at a glance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lratlas.analysis.recommendation import Recommendation
from lratlas.report.data import regime_bands
from lratlas.report.look import REGIME_COLOURS
from lratlas.report.rows import lr_text
from lratlas.tables import Tables

# Narrower parts, in per cent of the strip, have no room for their name.
_NAMED = 3.0
# More labels than this would touch on a phone.
_MOST_TICKS = 6
_DARK, _LIGHT = "#111111", "#ffffff"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A stretch of LRs of one regime: where it begins and how wide it is, in per cent of the strip."""

    regime: str
    start: float
    width: float
    label: str
    ink: str


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A power of ten below the strip, at a place in per cent."""

    place: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The recommended LRs: where they begin and how far they reach, in per cent of the strip."""

    start: float
    width: float


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The parts, the ticks and the recommended LRs, and the same in words."""

    parts: Sequence[Part]
    ticks: Sequence[Tick]
    mark: Mark | None
    words: str


def strip(tables: Tables, recommended: Recommendation | None = None) -> Strip | None:
    """The regimes from the lowest to the highest PLR on a log scale; None where there are none yet.

    Args:
        tables: The study's tables; of them only ``regimes``.
        recommended: The PLRs to mark.
    """
    bands = regime_bands(tables).to_dicts()
    if not bands:
        return None
    low, high = math.log10(bands[0]["low"]), math.log10(bands[-1]["high"])

    def place(plr: float) -> float:
        return round(100 * (math.log10(plr) - low) / (high - low), 3)

    parts = [_part(band["regime"], place(band["low"]), place(band["high"])) for band in bands]
    decades = range(math.ceil(low), math.floor(high) + 1)
    every = math.ceil(len(decades) / _MOST_TICKS) or 1
    ticks = [Tick(place=place(10.0**power), label=f"1e{power}") for power in decades if power % every == 0]
    mark = recommended and Mark(
        start=place(recommended.low), width=round(place(recommended.high) - place(recommended.low), 3)
    )
    return Strip(parts=parts, ticks=ticks, mark=mark, words=_words(bands, recommended))


def readable_ink(colour: str) -> str:
    """Black or white, whichever is easier to read on a hexadecimal colour (WCAG's contrast).

    Example:
        >>> readable_ink("#0072B2"), readable_ink("#E69F00")
        ('#ffffff', '#111111')
    """
    ground = _luminance(colour) + 0.05
    on_dark, on_light = ground / (_luminance(_DARK) + 0.05), (_luminance(_LIGHT) + 0.05) / ground
    return _DARK if on_dark >= on_light else _LIGHT


def _words(bands: Sequence[Mapping[str, Any]], recommended: Recommendation | None) -> str:
    named = "; ".join(f"{band['regime']} from {lr_text(band['low'])} to {lr_text(band['high'])}" for band in bands)
    words = f"Regimes along the pre-training learning rate: {named}."
    if recommended is None:
        return words
    ends = " to ".join(dict.fromkeys((lr_text(recommended.low), lr_text(recommended.high))))
    return f"{words} Recommended: {ends}."


def _part(regime: str, start: float, end: float) -> Part:
    width = round(end - start, 3)
    name = "?" if regime == "undecided" else regime
    label = name if width >= _NAMED else ""
    return Part(regime=regime, start=start, width=width, label=label, ink=readable_ink(REGIME_COLOURS[regime]))


def _luminance(colour: str) -> float:
    """Relative luminance of sRGB, from 0 to 1."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
