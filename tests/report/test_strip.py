"""The strip of regimes: in order, without gaps, and readable."""

import polars as pl
import pytest

from lratlas.recommendation import COMPARED, Recommendation
from lratlas.report.page import readable_ink, strip
from lratlas.report.theme import REGIME_COLOURS
from lratlas.tables import SCHEMAS, Tables, empty


def regimes(**names: str) -> Tables:
    rows = [{"plr": 10.0 ** int(power[1:]), "regime": regime} for power, regime in names.items()]
    return {"regimes": pl.DataFrame(rows, schema=SCHEMAS["regimes"])}


def advice(low: float, high: float) -> Recommendation:
    return Recommendation(
        lr=low,
        low=low,
        high=high,
        finish="average",
        metric="test_accuracy",
        value=0.9,
        count=5,
        at_edge=False,
        evidence=pl.DataFrame(schema=COMPARED),
        statement="",
    )


def test_a_decade_is_as_wide_everywhere() -> None:
    """Four PLRs a decade apart; the outer ones reach half a decade further."""
    found = strip(regimes(p0="1", p1="1", p2="2A", p3="3"), advice(10.0, 100.0))
    assert found is not None
    assert [(part.regime, part.start, part.width) for part in found.parts] == [
        ("1", 0.0, 50.0), ("2A", 50.0, 25.0), ("3", 75.0, 25.0),
    ]  # fmt: skip
    assert [(tick.label, tick.place) for tick in found.ticks] == [
        ("1e0", 12.5), ("1e1", 37.5), ("1e2", 62.5), ("1e3", 87.5),
    ]  # fmt: skip
    assert found.mark is not None
    assert (found.mark.at, found.mark.start, found.mark.width) == (37.5, 37.5, 25.0)
    assert "2A from 3.16e1 to 3.16e2" in found.words
    assert found.words.endswith("Recommended: 1e1 to 1e2.")


def test_one_recommended_lr_is_named_once() -> None:
    found = strip(regimes(p0="1", p1="2A"), advice(10.0, 10.0))
    assert found is not None
    assert found.mark is not None
    assert found.mark.width == 0.0
    assert found.words.endswith("Recommended: 1e1.")


def test_many_decades_have_few_ticks_and_narrow_parts_no_name() -> None:
    found = strip(regimes(**{f"p{power}": "2B" if power == 20 else "1" for power in range(40)}))
    assert found is not None
    assert 3 <= len(found.ticks) <= 6
    assert [part.label for part in found.parts] == ["1 converges", "", "1 converges"]
    assert found.mark is None


def test_nothing_decided_is_no_strip() -> None:
    assert strip({"regimes": empty("regimes")}) is None


@pytest.mark.parametrize("colour", REGIME_COLOURS.values())
def test_names_are_readable_on_every_regime(colour: str) -> None:
    """At least 4.5 to 1 by the WCAG's formula."""
    light, dark = sorted((luminance(colour), luminance(readable_ink(colour))), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def luminance(colour: str) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (byte / 255 for byte in bytes.fromhex(colour[1:]))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
