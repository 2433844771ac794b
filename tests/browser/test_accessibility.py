"""A report can be read by everybody: axe-core's rules, and contrast inside the charts too."""

from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe

from browser.browsing import DESKTOP, PHONE, Opener

pytestmark = pytest.mark.xdist_group("browser")

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

# For every text of the charts its colour, and that of the page.
TEXTS = """
() => {
  const shown = [...document.querySelectorAll(".chart svg text")].filter(text => text.textContent.trim());
  const page = getComputedStyle(document.body).backgroundColor;
  return shown.map(text => {
    const look = getComputedStyle(text);
    const opacity = Number(look.opacity) * Number(look.fillOpacity);
    return { text: text.textContent, ink: look.fill, opacity, page, size: parseFloat(look.fontSize) };
  });
}
"""


# axe-core looks at every mark of every chart, so only the first of those alike stay. Colours depend on the scheme
# alone, and sizes on the screen.
@pytest.mark.parametrize(("size", "dark"), [(DESKTOP, False), (PHONE, True)], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", ["hostile", "comparison"])
def test_axe_finds_nothing_serious(
    opened: Opener, name: str, size: tuple[int, int], dark: bool, request: pytest.FixtureRequest
) -> None:
    whole = opened(request.getfixturevalue(name), size=size, dark=dark)
    whole.draw_all()
    whole.page.evaluate("() => document.querySelectorAll('svg path:nth-child(n + 6)').forEach(mark => mark.remove())")
    # Its preloading is for style sheets and films from elsewhere, of which the page has none.
    found = Axe().run(whole.page, options={"resultTypes": ["violations"], "preload": False})
    violations: list[dict[str, Any]] = found.response["violations"]
    serious = [each["id"] for each in violations if each["impact"] in {"serious", "critical"}]
    assert not serious, found.generate_report()


def test_the_writing_in_charts_stands_out(opened: Opener, study: Path) -> None:
    """As much as of any text, by the WCAG's formula: 4.5 to 1. axe-core does not look into drawings."""
    whole = opened(study)
    whole.draw_all()
    for scheme in SCHEMES:
        whole.page.emulate_media(color_scheme=scheme)
        texts: list[dict[str, Any]] = whole.page.evaluate(TEXTS)
        assert len(texts) > 100
        # Labels of an axis that would overlap others are there, but hidden.
        shown = [text for text in texts if text["opacity"] > 0]
        assert len(shown) > 100
        assert not [text for text in shown if contrast(text["ink"], text["page"], text["opacity"]) < 4.5]
        assert min(text["size"] for text in texts) >= 8


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_is_dark_where_that_is_wished(opened: Opener, study: Path, dark: bool) -> None:
    page = opened(study, dark=dark).page
    ink, ground = page.evaluate("() => [getComputedStyle(document.body)].flatMap(l => [l.color, l.backgroundColor])")
    assert contrast(ink, ground) > 7
    assert (luminance(channels(ground)) < 0.05) == dark


def contrast(ink: str, ground: str, opacity: float = 1.0) -> float:
    """The contrast of WCAG 2.2 between a text, as far as it covers, and what is behind it."""
    behind = channels(ground)
    seen = [opacity * over + (1 - opacity) * under for over, under in zip(channels(ink), behind, strict=True)]
    light, dark = sorted([luminance(seen), luminance(behind)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


def channels(colour: str) -> list[float]:
    """Red, green and blue of ``rgb(…)``, each from 0 to 1."""
    return [float(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]


def luminance(parts: list[float]) -> float:
    """Relative luminance in WCAG 2.2's definition."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
