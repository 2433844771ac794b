"""A report as a page: on its own, harmless, on a phone, on paper, by keyboard, and while the study runs."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from browser.browsing import DESKTOP, PHONE, Opener
from browser.conftest import EVIL
from lratlas.atlas import load

pytestmark = pytest.mark.xdist_group("browser")

SECTIONS = ["answer", "best", "regimes", "verdicts", "found", "charts", "tables", "made"]
# The element that has the focus: where it is on the page, what it is, and whether that can be seen.
FOCUSED = """
() => {
  const at = document.activeElement;
  if (at === document.body) return null;
  const look = getComputedStyle(at), box = at.getBoundingClientRect();
  return {
    place: at.closest("nav, section[id]")?.id || at.closest("nav")?.localName || "",
    kind: at.localName,
    table: at.dataset.table ?? null,
    href: at.getAttribute("href"),
    ringed: look.outlineStyle !== "none" && parseFloat(look.outlineWidth) >= 1,
    seen: box.width > 0 && box.bottom > 0 && box.top < innerHeight,
  };
}
"""


def test_a_report_asks_nothing_of_anybody_and_does_not_complain(opened: Opener, study: Path) -> None:
    whole = opened(study)
    whole.draw_all()
    for select in whole.page.locator("form.vega-bindings select").all():
        for index in range(select.locator("option").count()):
            select.select_option(index=index)
    whole.page.wait_for_timeout(500)
    assert whole.outside == []
    assert whole.complaints == []


def test_complaints_and_requests_are_noticed(opened: Opener, studies: Path) -> None:
    """What the test above relies on."""
    (studies / "bad").mkdir(exist_ok=True)
    (studies / "bad" / "report.html").write_text(
        "<title>bad</title><script>console.warn('w'); alert('a'); setTimeout(() => { throw Error('e') })</script>"
        "<img src='http://127.0.0.1:9/x.png'>"
    )
    bad = opened(studies / "bad")
    bad.page.wait_for_timeout(300)
    assert bad.outside == ["http://127.0.0.1:9/x.png"]
    assert {"warning: w", "dialog: a", "error: e"} <= set(bad.complaints)
    bad.complaints.clear()
    bad.requests.clear()


def test_the_answer_comes_first(opened: Opener, study: Path) -> None:
    page = opened(study).page
    assert page.locator("main section[id]").evaluate_all("all => all.map(one => one.id)") == SECTIONS
    expect(page.locator("#answer")).to_be_in_viewport()
    claims = load(study).table("claims")
    assert len(claims) > 5
    entries = page.locator("#verdicts [data-claim]")
    shown = entries.evaluate_all("all => all.map(one => [one.dataset.claim, one.dataset.verdict])")
    assert sorted(map(tuple, shown)) == sorted(claims.select("claim", "verdict").rows())
    for claim, statement in claims.select("claim", "statement").iter_rows():
        expect(page.locator(f"#verdicts [data-claim='{claim}']")).to_contain_text(statement)


def test_names_are_shown_as_text(opened: Opener, hostile: Path) -> None:
    bad = opened(hostile)
    bad.draw_all()
    assert bad.page.title().startswith(EVIL)
    expect(bad.page.locator("h1")).to_have_text(EVIL)
    expect(bad.page.get_by_text(f"the task of {EVIL}").first).to_be_visible()
    expect(bad.page.locator("#made")).to_contain_text(hostile.name)
    assert bad.page.locator("script:text('alert(1)'), img[src=x]").count() == 0
    assert bad.complaints == []


def test_names_are_shown_as_text_side_by_side_too(opened: Opener, comparison: Path) -> None:
    bad = opened(comparison)
    assert bad.draw_all() == ["comparison"]
    expect(bad.page.get_by_role("columnheader", name=EVIL)).to_be_visible()
    assert bad.page.locator("script:text('alert(1)'), img[src=x]").count() == 0
    assert bad.complaints == []


def test_an_unfinished_study_says_what_is_missing(opened: Opener, unfinished: Path) -> None:
    part = opened(unfinished)
    names = part.draw_all()
    assert "traces" in names
    assert "geometry" not in names
    expect(part.page.get_by_text("unfinished", exact=False).first).to_be_visible()
    expect(part.page.locator("#charts .missing").first).to_contain_text("pairs")
    tables = part.page.locator("button[data-table]").evaluate_all("all => all.map(one => one.dataset.table)")
    assert "runs" in tables
    assert "pairs" not in tables


@pytest.mark.parametrize("name", ["study", "hostile"])
def test_a_phone_never_scrolls_sideways(opened: Opener, name: str, request: pytest.FixtureRequest) -> None:
    small = opened(request.getfixturevalue(name), size=PHONE)
    small.draw_all()
    widths: list[int] = small.page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
    assert widths == [PHONE[0], PHONE[0]]
    # Wide charts and tables scroll inside themselves; the text does not.
    for chart in small.page.locator(".chart svg.marks").all():
        box = chart.bounding_box()
        assert box is not None
        assert box["width"] > 200


def test_paper_gets_every_chart(opened: Opener, study: Path) -> None:
    # Charts are unpacked when the browser has nothing else to do, and printing does not wait: a slow machine gets time.
    for seconds in (1, 4, 16):
        page = opened(study).page
        figures = page.locator(".charts figure").count()
        assert page.locator("figure[data-drawn]").count() < figures
        page.wait_for_timeout(1000 * seconds)
        page.evaluate("addEventListener('afterprint', () => { window.onPaper = document.body.cloneNode(true) })")
        page.pdf()
        if page.evaluate("onPaper.querySelectorAll('figure[data-drawn] svg.marks').length") == figures:
            return
    raise AssertionError("Charts are missing on paper.")


def test_paper_has_no_controls(opened: Opener, study: Path) -> None:
    whole = opened(study)
    whole.draw_all()
    whole.page.emulate_media(media="print")
    for hidden in ("nav", "form.vega-bindings", "button[data-table]", ".chart summary"):
        every = whole.page.locator(hidden)
        assert every.count() > 0
        assert not any(one.is_visible() for one in every.all()), hidden


def test_paper_is_light_also_where_the_screen_is_dark(opened: Opener, study: Path) -> None:
    page = opened(study, dark=True).page
    page.emulate_media(media="print")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground in {"rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"}


def test_tab_leads_through_the_page_in_order_and_shows_where_it_is(opened: Opener, study: Path) -> None:
    whole = opened(study, size=DESKTOP)
    whole.draw_all()
    whole.page.evaluate("scrollTo(0, 0)")
    stops = tabbed(whole.page)
    assert stops[0]["kind"] == "a"
    assert (stops[0]["href"] or "").startswith("#")
    first = [(stop["place"], stop["kind"]) for stop in stops]
    regions = (("nav", "a"), ("best", "select"), ("charts", "select"), ("tables", "button"))
    places = [first.index(place) for place in regions]
    assert places == sorted(places)
    selects = whole.page.locator("form.vega-bindings select").count()
    assert first.count(("best", "select")) + first.count(("charts", "select")) == selects > 0
    buttons = whole.page.locator("button[data-table]").evaluate_all("all => all.map(one => one.dataset.table)")
    assert [stop["table"] for stop in stops if stop["table"]] == buttons
    assert [stop for stop in stops if not (stop["ringed"] and stop["seen"])] == []


def test_the_skip_link_and_the_navigation_lead_to_what_they_name(opened: Opener, study: Path) -> None:
    page = opened(study).page
    page.keyboard.press("Tab")
    target = page.evaluate("document.activeElement.getAttribute('href')")
    page.keyboard.press("Enter")
    expect(page.locator(target)).to_be_in_viewport()
    for link in page.locator("nav a").all():
        name = link.get_attribute("href")
        assert name
        link.click()
        expect(page.locator(name)).to_be_in_viewport()


def tabbed(page: Page) -> list[dict[str, Any]]:
    """Every stop of the tabulator key, once around the page."""
    stops: list[dict[str, Any]] = []
    while len(stops) < 500:
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUSED)
        if stop is None:
            break
        stops.append(stop)
    return stops
