"""The page works alone, answers first, and shows text as text."""

import base64
import gzip
import hashlib
import json
from html.parser import HTMLParser
from typing import Any

import altair as alt
import polars as pl
import pytest

from lratlas.analysis.claims import CLAIMS
from lratlas.recommendation import COMPARED, Recommendation
from lratlas.report.charts.catalog import CHARTS
from lratlas.report.charts.geometry import basin_in_words, geometry_data
from lratlas.report.page import page
from lratlas.tables import SCHEMAS, Tables, empty

EVIL = "<script>alert(1)</script>"
ADVICE = Recommendation(
    lr=1e-2,
    low=7.5e-3,
    high=2e-2,
    finish="fine-tune",
    metric="test_accuracy",
    value=0.8,
    flr=1e-4,
    at_edge=False,
    evidence=pl.DataFrame(schema=COMPARED),
    statement="Start with 1e-2.",
)


class Reader(HTMLParser):
    """Collects tags, their attributes, the text that a person sees, and what is packed in the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.seen: list[str] = []
        self.packed: dict[str, str] = {}
        self.scripts: list[str] = []
        self._tag, self._id = "", ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._tag, self._id = tag, dict(attrs).get("id") or ""

    def handle_endtag(self, tag: str) -> None:
        self._tag = "" if tag == self._tag else self._tag

    def handle_data(self, data: str) -> None:
        if self._tag == "script" and self._id:
            self.packed[self._id] = gzip.decompress(base64.b64decode(data)).decode()
        elif self._tag == "script":
            self.scripts.append(data)
        elif self._tag != "style" and data.strip():
            self.seen.append(" ".join(data.split()))

    def having(self, attribute: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.tags if attribute in attributes]

    @property
    def policy(self) -> str:
        return next(a["content"] or "" for a in self.having("http-equiv"))


def claims_table() -> pl.DataFrame:
    rows: list[dict[str, Any]] = [
        {"verdict": "supported", "effect": 0.0213, "low": 0.012, "high": 0.0304, "statement": "It holds."},
        {"verdict": "contradicted", "effect": -0.5, "low": None, "high": None, "statement": f"Not so: {EVIL}"},
        {"verdict": "inconclusive", "effect": 0.0, "low": None, "high": None, "statement": "It may."},
        {"verdict": "not measured", "effect": None, "low": None, "high": None, "statement": "Nothing was averaged."},
    ]
    named = [{"claim": name, **row} for name, row in zip(CLAIMS, rows, strict=False)]
    return pl.DataFrame(named, schema=SCHEMAS["claims"])


def make(tables: Tables, **changes: Any) -> str:
    given: dict[str, Any] = {
        "title": "Ticks",
        "recommended": ADVICE,
        "summary": ["Larger LRs diverge."],
        "charts": {},
        "facts": {"command": "lratlas demo", "wall time": "4 min"},
        "tables": tables,
    }
    return page(**(given | changes))


@pytest.fixture(scope="module")
def html(tables: Tables) -> str:
    return make({**tables, "claims": claims_table()}, charts={"geometry": CHARTS["geometry"](tables)})


@pytest.mark.parametrize("live", [False, True])
def test_the_page_asks_nothing_of_a_network(live: bool, tables: Tables) -> None:
    reader = Reader(make(tables, live=live))
    assert not {"link", "iframe", "img", "object", "base", "form"} & {tag for tag, _ in reader.tags}
    links = [a["href"] or "" for a in reader.having("href")]
    assert all(link.startswith("#") for link in links)
    assert not any({"src", "srcset", "action"} & set(attributes) for _, attributes in reader.tags)
    assert reader.policy.startswith("default-src 'none'; ")
    assert "http" not in reader.policy
    # Only the live page may ask, and only where it came from.
    assert ("connect-src 'self'" in reader.policy) == live == ("fetch(" in reader.scripts[1])


@pytest.mark.parametrize("live", [False, True])
def test_the_policy_runs_the_page_s_own_scripts_alone(live: bool, tables: Tables) -> None:
    reader = Reader(make(tables, live=live))
    assert "'unsafe-inline'" not in reader.policy.split("script-src")[1].split(";")[0]
    assert len(reader.scripts) == (3 if live else 2)
    for script in reader.scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in reader.policy
    assert reader.policy.count("sha256-") == len(reader.scripts)


def test_the_page_comes_in_order(html: str, tables: Tables) -> None:
    reader, geometry = Reader(html), basin_in_words(geometry_data(tables), tables["regimes"])
    assert [a["id"] for tag, a in reader.tags if tag == "section"] == [
        "answer", "regimes", "verdicts", "found", "charts", "tables", "made",
    ]  # fmt: skip
    landmarks = [
        "Start with 1e-2.",
        "Regimes", "1 | 2, the convergence threshold", "The paper’s claims, on this task", "It holds.",
        "What the study found", "Larger LRs diverge.", "Charts", geometry,
        "Tables", "How this was made", "lratlas demo",
    ]  # fmt: skip
    places = [reader.seen.index(text, 8) for text in landmarks]  # after the links to the sections
    assert places == sorted(places)
    targets = {a["href"] for a in reader.having("href")}
    assert targets <= {f"#{a['id']}" for a in reader.having("id")}


def test_each_finding_has_its_verdict_as_a_word(html: str) -> None:
    reader = Reader(html)
    entries = [(a["data-claim"], a["data-verdict"]) for a in reader.having("data-claim")]
    assert entries == list(claims_table().select("claim", "verdict").iter_rows())
    assert "1 supported, 1 contradicted, 1 inconclusive." in " ".join(reader.seen)
    for name, verdict in entries:
        start = reader.seen.index(CLAIMS[name or ""].title)
        if verdict == "not measured":  # they stand apart, under these words
            assert reader.seen[start - 1 : start + 2 : 2] == ["Not measured: 1 more", "Nothing was averaged."]
        else:
            assert reader.seen[start + 1] == verdict


def test_the_strip_shows_regimes_and_advice_in_words_too(html: str) -> None:
    words = next(a["aria-label"] or "" for a in Reader(html).having("aria-label") if a.get("class") == "strip")
    assert [part.split()[0] for part in words.split(": ", 1)[1].split("; ")] == ["1", "2A", "2B", "3"]
    assert words.endswith("Recommended: 7.5e-3 to 2e-2.")


def test_the_page_holds_the_charts_with_words_for_them(html: str, tables: Tables) -> None:
    reader = Reader(html)
    assert json.loads(reader.packed["spec-geometry"]) == CHARTS["geometry"](tables).to_dict()
    chart = next(a for _, a in reader.tags if a.get("class") == "chart")
    assert chart["data-chart"] == "geometry"
    assert "angle" in (chart["aria-label"] or "")
    assert ("figure", {"id": "chart-geometry"}) in reader.tags
    assert ("html", {"lang": "en"}) in reader.tags


def test_every_table_with_rows_has_a_button(tables: Tables) -> None:
    reader = Reader(make({**tables, "claims": empty("claims")}, folder="a b"))
    names = [a["data-table"] for tag, a in reader.tags if tag == "button"]
    assert names == [name for name in SCHEMAS if name in tables]
    assert {f"csv-{name}" for name in names} == set(reader.packed)
    lines = reader.packed["csv-runs"].splitlines()
    assert len(lines) == 1 + tables["runs"].height
    assert "lratlas show 'a b' TABLE --format csv" in reader.seen


def test_a_table_that_is_too_large_says_so(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lratlas.report.shell._MOST_CELLS", 1_000)
    reader = Reader(make(tables))
    assert not any(a.get("data-table") == "runs" for a in reader.having("data-table"))
    assert "too large for this page" in reader.seen
    assert any("up to 12 MB" in text for text in reader.seen)
    assert any(a.get("data-table") == "boundaries" for a in reader.having("data-table"))


def test_text_is_never_read_as_html(tables: Tables) -> None:
    chart = alt.Chart(alt.InlineData(values=[{"x": EVIL}])).mark_point().encode(x="x:N").properties(description=EVIL)
    runs = tables["runs"].head(2).with_columns(run=pl.lit(EVIL))
    html = make(
        {**tables, "runs": runs, "claims": claims_table()}, title=EVIL, task=EVIL, summary=[EVIL], folder=EVIL,
        charts={EVIL: chart}, facts={EVIL: EVIL}, missing={EVIL: EVIL}, progress=EVIL,
    )  # fmt: skip
    reader = Reader(html)
    assert EVIL not in html
    assert [tag for tag, _ in reader.tags].count("script") == html.lower().count("</script")
    assert len(reader.scripts) == 2
    assert json.loads(reader.packed[f"spec-{EVIL}"])["description"] == EVIL
    assert reader.packed["csv-runs"].count(EVIL) == 2
    assert sum(EVIL in text for text in reader.seen) >= 9


def test_numbers_are_written_for_people(html: str, tables: Tables) -> None:
    seen = Reader(html).seen
    assert "7e-3" in seen
    assert "5.38e-3 to 9.1e-3" in seen  # 7e-3 / 1.3 and 7e-3 · 1.3
    # In its own table; the strip and its legend name it once each.
    assert seen.count("2A") == tables["regimes"]["regime"].to_list().count("2A") + 2
    assert "90.0%" in seen


def test_what_is_missing_is_said(tables: Tables) -> None:
    boundaries = tables["boundaries"].with_columns(value=None, below=None, above=None, low=None, high=None)
    assert Reader(make({**tables, "boundaries": boundaries})).seen.count("not reached") == 3
    bare = {"boundaries": empty("boundaries"), "regimes": empty("regimes")}
    missing, progress = {"features": "There are no features."}, "unfinished: 12 of 40 jobs done"
    seen = Reader(make(bare, recommended=None, summary=[], missing=missing, progress=progress)).seen
    for words in (
        "unfinished: 12 of 40 jobs done",
        "No learning rate can be recommended yet.",
        "No findings yet.",
        "No boundaries have been found yet.",
        "No verdicts yet: they need finished runs.",
        "Features",
        "Not drawn. There are no features.",
        "No regimes have been decided yet.",
        "No table has rows yet.",
    ):
        assert words in seen


def test_a_page_is_made_the_same_twice(tables: Tables) -> None:
    """The live page tells by its text what has changed."""
    charts = {"geometry": CHARTS["geometry"](tables)}
    assert make(tables, charts=charts, live=True) == make(tables, charts=charts, live=True)
