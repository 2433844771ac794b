"""The page works alone, answers first, and shows text as text."""

import json
from html.parser import HTMLParser
from typing import Any

import altair as alt
import pytest

from lratlas.report.charts import CHARTS
from lratlas.report.page import page
from lratlas.tables import Tables, empty

EVIL = "<script>alert(1)</script>"


class Reader(HTMLParser):
    """Collects tags, their attributes, and the text that a person sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.seen: list[str] = []
        self.specs: dict[str, Any] = {}
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = f"after {tag}"

    def handle_data(self, data: str) -> None:
        if self._inside == "specs":
            self.specs = json.loads(data)
        elif self._inside not in {"script", "style"} and data.strip():
            self.seen.append(data.strip())


def make(tables: Tables, **changes: Any) -> str:
    given: dict[str, Any] = {
        "title": "Ticks",
        "summary": ["Use 1e-2.", "Larger LRs diverge."],
        "charts": {},
        "facts": {"command": "lratlas demo", "wall time": "4 min"},
        "tables": tables,
    }
    return page(**(given | changes))


@pytest.fixture(scope="module")
def html(tables: Tables) -> str:
    return make(tables, charts={"geometry": CHARTS["geometry"](tables)})


def test_the_page_asks_nothing_of_a_network(html: str) -> None:
    tags = Reader(html).tags
    assert not {"link", "iframe", "img", "object", "base", "form"} & {tag for tag, _ in tags}
    assert not any({"src", "href", "srcset", "action"} & set(attributes) for _, attributes in tags)
    policy = next(a["content"] for tag, a in tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_the_page_comes_in_order(html: str) -> None:
    seen = Reader(html).seen
    landmarks = [
        "Use 1e-2.", "Larger LRs diverge.", "1 | 2, the convergence threshold", "Charts",
        "How far apart the solutions of one PLR lie", "Regimes", "How this was made", "lratlas demo",
    ]  # fmt: skip
    places = [seen.index(text) for text in landmarks]
    assert places == sorted(places)


def test_the_page_holds_the_charts_with_words_for_them(html: str, tables: Tables) -> None:
    reader = Reader(html)
    assert reader.specs == {"geometry": CHARTS["geometry"](tables).to_dict()}
    chart = next(a for _, a in reader.tags if a.get("class") == "chart")
    assert chart["data-chart"] == "geometry"
    assert "angle" in (chart["aria-label"] or "")
    assert ("html", {"lang": "en"}) in reader.tags


def test_text_is_never_read_as_html(tables: Tables) -> None:
    chart = alt.Chart(alt.InlineData(values=[{"x": EVIL}])).mark_point().encode(x="x:N").properties(description=EVIL)
    html = make(
        tables, title=EVIL, summary=[EVIL], charts={EVIL: chart}, facts={EVIL: EVIL}, missing={EVIL: EVIL}
    )  # fmt: skip
    reader = Reader(html)
    assert EVIL not in html
    assert [tag for tag, _ in reader.tags].count("script") == html.lower().count("</script") == 3
    assert reader.specs[EVIL]["description"] == EVIL
    assert reader.seen.count(EVIL) >= 4


def test_numbers_are_written_for_people(html: str, tables: Tables) -> None:
    seen = Reader(html).seen
    assert "7e-3" in seen
    assert "5.38e-3 to 9.1e-3" in seen  # 7e-3 / 1.3 and 7e-3 · 1.3
    assert seen.count("2A") == tables["regimes"]["regime"].to_list().count("2A")
    assert "90.0 %" in seen


def test_what_is_missing_is_said(tables: Tables) -> None:
    boundaries = tables["boundaries"].with_columns(value=None, below=None, above=None, low=None, high=None)
    assert Reader(make({**tables, "boundaries": boundaries})).seen.count("not reached") == 3
    bare = {"boundaries": empty("boundaries"), "regimes": empty("regimes")}
    seen = Reader(make(bare, summary=[], missing={"features": "There are no features."})).seen
    assert "No boundaries have been found yet." in seen
    assert "No regimes have been decided yet." in seen
    assert "There is nothing to sum up yet." in seen
    assert "Which features were learned" in seen
    assert "Not drawn. There are no features." in seen
