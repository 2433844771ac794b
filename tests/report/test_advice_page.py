"""The page of a search: what it says, in which order, and that it is whole."""

import base64
import gzip
import io
import re
from html import unescape

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lratlas.report.charts.advice import advice_chart
from lratlas.report.charts.course import course_chart
from lratlas.report.search_page import HEADINGS, METHOD, advice_page, evidence_rows, headings
from lratlas.search.advice import COMPARED, EVIDENCE, Advice
from report.search_helpers import advice, annealed, row, searched, without_lr

EVIL = "<script>alert(1)</script>"


def page_of(made: Advice) -> str:
    return advice_page(made, {"advice": advice_chart(made), "course": course_chart(made)}, facts={"Cost": EVIL})


def test_the_statement_comes_first() -> None:
    found = searched()
    text = unescape(page_of(found))
    lines = found.statement.splitlines()
    parts = [*lines, *found.warnings, "chart-advice", "chart-course", 'id="finish"', 'id="evidence"', *METHOD]
    places = [text.index(part) for part in [*parts, 'id="made"']]
    assert places == sorted(places)
    assert len(lines) > 3
    assert found.warnings


@pytest.mark.parametrize("verdict", ["tie", "not_learned", "diverged"])
def test_a_page_without_an_lr_says_so_first_and_shows_no_recipe(verdict: str) -> None:
    made = advice(row(0.1, 100, 0.8), row(0.2, 100, 0.8), **without_lr(verdict, "All the same."))
    text = page_of(made)
    assert text.index("No LR is recommended.") < text.index("All the same.") < text.index("chart-advice")
    assert 'id="finish"' not in text
    assert 'href="#finish"' not in text


def test_text_is_shown_as_text_and_the_page_is_whole() -> None:
    bad = advice(row(0.1, 100, 0.8), row(1.0, 100, None, failure=EVIL), warnings=(EVIL,))
    text = page_of(bad)
    assert EVIL not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 4  # text and sort key of a cell, warning, fact
    assert "default-src &#39;none&#39;" in text
    assert not re.search(r"<(link|img|iframe)\b|<script[^>]* src=", text.split('<script type="text/plain"')[0])


def test_the_evidence_can_be_downloaded_in_full_precision() -> None:
    found = searched()
    for name, schema, frame in (("evidence", EVIDENCE, found.evidence), ("compared", COMPARED, found.compared)):
        packed = re.search(rf'id="csv-{name}">([^<]+)<', page_of(found))
        assert packed is not None
        csv = gzip.decompress(base64.b64decode(packed[1]))
        assert_frame_equal(pl.read_csv(io.BytesIO(csv), schema=schema), frame, check_exact=True)
        assert f'data-table="{name}"' in page_of(found)


def test_the_table_has_a_row_for_each_segment() -> None:
    made = advice(
        row(0.0316227766, 1600, 0.123456789, value=12.5, regime="equilibrium"),
        row(1.0, 100, None, failure="it broke"),
        annealed(0.0316227766, 2000, 0.2),
    )
    texts = [[cell.text for cell in cells] for cells in evidence_rows(made)]
    assert len(HEADINGS) == len(texts[0])
    assert texts == [
        ["3.16e-2", "0", "1,600", "1/4", "constant", "0.12346", "12.5", "equilibrium", "1.5", "–"],
        ["3.16e-2", "0", "2,000", "0.31", "annealed", "–", "0.2", "undecided", "1.5", "–"],
        ["1e0", "0", "100", "1/64", "constant", "–", "–", "undecided", "1.5", "it broke"],
    ]


def test_the_table_counts_what_the_search_counts() -> None:
    assert [each for each in headings(advice(row(0.1, 100, 0.8))) if each in {"steps", "epochs"}] == ["steps"]
    text = page_of(advice(row(0.1, 5, 0.8), row(1.0, 5, 0.7), steps=20, counted="epochs"))
    shown = unescape(re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<(script|style).*?</\1>", "", text)))
    assert "epochs" in shown
    assert not re.search(r"\bsteps?\b", shown)


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("linear", "linear schedule"),
        ("cosine", "cosine schedule"),
        ("custom", "custom schedule"),
        ("constant", "constant"),
    ],
)
def test_the_table_says_the_schedule(schedule: str, said: str) -> None:
    assert evidence_rows(advice(row(0.1, 100, 0.8), schedule=schedule))[0][4].text == said


def test_cells_are_sorted_by_their_values() -> None:
    cells = evidence_rows(advice(row(0.1, 12_800, 0.8)))[0]
    assert [cell.key for cell in cells] == [0.1, 0, 12_800, 2.0, 0, 0.8, "", "undecided", 1.5, ""]


@pytest.mark.parametrize("regime", ["converging", "equilibrium", "diverging", "undecided"])
def test_regimes_are_explained_where_they_occur(regime: str) -> None:
    text = page_of(advice(row(0.1, 100, 0.8, regime=regime)))
    assert re.findall(r'<li><b class="dot"[^>]*>(\w+)</b>', text) == [regime]
