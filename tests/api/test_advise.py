"""The files that an advice is written to."""

import json
import math
import sys
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

import pytest

from lratlas.api.advise import advice_facts, charts_of, cost_facts, write_advice
from lratlas.errors import SearchError
from lratlas.search.advice import Advice
from lratlas.search.regimes import Bracket
from report.search_helpers import advice, row, searched, without_lr

FILES = ("advice.json", "advice.svg", "advice.pdf", "advice.html")


def strict(text: str) -> dict[str, object]:
    """Parse JSON as scripts in other languages do: NaN and Infinity are errors."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def test_everything_is_written_and_nothing_else(tmp_path: Path) -> None:
    page = write_advice(searched(), tmp_path / "new")
    assert page == tmp_path / "new" / "advice.html"
    assert sorted(each.name for each in page.parent.iterdir()) == sorted(FILES)
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (page.parent / "advice.pdf").read_bytes().startswith(b"%PDF")
    assert "<svg" in (page.parent / "advice.svg").read_text(encoding="utf-8")


def test_without_vl_convert_there_is_the_same_page_and_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    drawn = write_advice(searched(), tmp_path / "drawn").read_bytes()
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert write_advice(searched(), tmp_path / "undrawn").read_bytes() == drawn
    assert {path.name for path in (tmp_path / "undrawn").iterdir()} == {"advice.json", "advice.html"}
    (message,) = caplog.messages
    assert "pip install 'lratlas[figures]'" in message


def test_writing_again_replaces(tmp_path: Path) -> None:
    for metric in (0.8, 0.7):
        write_advice(advice(row(0.1, 100, metric)), tmp_path)
    assert strict((tmp_path / "advice.json").read_text())["best"] == 0.7
    assert len(list(tmp_path.iterdir())) == len(FILES)


def test_json_has_all_fields(tmp_path: Path) -> None:
    found = searched()
    write_advice(found, tmp_path)
    record = strict((tmp_path / "advice.json").read_text(encoding="utf-8"))
    assert set(record) == {each.name for each in fields(Advice)} | {"statement", "recommendation"}
    assert record["statement"] == found.statement
    assert record["lr"] == found.lr
    assert record["warnings"] == list(found.warnings)
    assert record["evidence"] == found.evidence.to_dicts()
    assert record["compared"] == found.compared.to_dicts()
    assert record["expected_low"] == found.expected_low
    assert record == advice_facts(found)
    assert found.divergence is not None
    assert record["divergence"] == {
        "below": found.divergence.below,
        "above": found.divergence.above,
        "value": found.divergence.value,
    }


def test_json_has_null_for_what_is_missing_or_not_finite(tmp_path: Path) -> None:
    made = advice(row(0.1, 100, 0.8, value=math.nan, seconds=math.inf), expected=math.nan)
    write_advice(made, tmp_path)
    record = strict((tmp_path / "advice.json").read_text(encoding="utf-8"))
    assert (record["expected"], record["convergence"], record["divergence"]) == (None, None, None)
    assert isinstance(record["evidence"], list)
    (segment_row,) = record["evidence"]
    assert (segment_row["value"], segment_row["seconds"], segment_row["failure"]) == (None, None, None)
    assert segment_row["averaged"] == 0.8


@pytest.mark.parametrize("verdict", ["tie", "not_learned", "diverged"])
def test_an_advice_without_an_lr_is_written_too(tmp_path: Path, verdict: str) -> None:
    good = [row(lr, steps, 0.5) for lr in (0.1, 0.2) for steps in (100, 200)]
    bad = [row(lr, 100, None, failure="the loss is not finite") for lr in (0.1, 0.2)]
    found = without_lr(verdict, "The reason.", best=math.nan)
    made = advice(*bad, **found) if verdict == "diverged" else advice(*good, **found)
    page = write_advice(made, tmp_path)
    assert "No LR is recommended." in page.read_text(encoding="utf-8")
    record = strict((tmp_path / "advice.json").read_text(encoding="utf-8"))
    assert (record["verdict"], record["reason"], record["lr"], record["best"]) == (verdict, "The reason.", None, None)
    assert "Best so far" not in cost_facts(made)
    assert "Expected" not in cost_facts(made)


def test_a_checkpoint_is_a_path_in_json(tmp_path: Path) -> None:
    made = advice(row(0.1, 100, 0.8), checkpoint=tmp_path / "checkpoint.safetensors", segment="lr0.1-seed0-to100")
    assert advice_facts(made)["checkpoint"] == str(tmp_path / "checkpoint.safetensors")
    assert "checkpoint.safetensors" in write_advice(made, tmp_path).read_text(encoding="utf-8")


def test_brackets_have_their_value() -> None:
    made = advice(row(0.1, 100, 0.8), convergence=Bracket(below=0.01, above=0.04))
    assert advice_facts(made)["convergence"] == {"below": 0.01, "above": 0.04, "value": pytest.approx(0.02)}


def test_a_search_of_one_rung_has_no_chart_of_eliminations() -> None:
    assert list(charts_of(advice(row(0.1, 100, 0.8), row(0.2, 100, 0.7)))) == ["advice"]
    assert list(charts_of(searched())) == ["advice", "course"]


def test_the_cost_is_in_full_trainings() -> None:
    found = cost_facts(advice(row(0.1, 100, 0.8), row(0.2, 100, 0.8, seed=1), cost=0.03125))
    assert found["Cost"] == "0.03 full trainings of 6,400 steps"
    assert found["Segments"] == "2, of 2 LRs and 2 seeds"
    assert found["Time"].startswith("3 s")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SearchError, match=r"file/advice.json cannot be written: "):
        write_advice(advice(row(0.1, 100, 0.8)), tmp_path / "file")
