"""What the chart of several studies shows, and which it leaves out."""

from typing import Any

import polars as pl
import pytest

from lratlas.analysis.comparison import Entry
from lratlas.errors import StudyError
from lratlas.report.charts.comparison import comparison_chart, comparison_data, why_left_out
from lratlas.report.figures import figure_svg
from lratlas.tables import SCHEMAS, empty


def entry(name: str, scores: dict[float, list[float]], *, threshold: float | None = 1e-2, loss: bool = False) -> Entry:
    column = "test_loss" if loss else "test_accuracy"
    runs = [
        {"run": f"{plr}-{seed}", "stage": "finetune", "plr": plr, "flr": 1e-5, "seed": seed, column: score}
        for plr, values in scores.items()
        for seed, score in enumerate(values)
    ]
    at = {"boundary": "convergence", "value": threshold}
    tables = {
        "runs": pl.DataFrame(runs, schema=SCHEMAS["runs"]),
        "regimes": empty("regimes"),
        "boundaries": pl.DataFrame([at], schema=SCHEMAS["boundaries"]),
    }
    return Entry(name=name, tables=tables, elr=True)


EASY = entry("easy", {1e-3: [0.90, 0.92], 2e-2: [0.95, 0.97], 1e-1: [0.1, 0.1]})
HARD = entry("hard", {1e-2: [0.30], 5e-2: [0.40]}, threshold=2.5e-2)
LOSSES = entry("losses", {1e-3: [2.0], 2e-2: [1.5]}, loss=True)
NOWHERE = entry("nowhere", {1e-3: [0.9]}, threshold=None)
UNTUNED = entry("untuned", {})


def spec(*entries: Entry) -> dict[str, Any]:
    return comparison_chart(entries).to_dict()


def layer(drawn: dict[str, Any], mark: str) -> dict[str, Any]:
    (found,) = [part for part in drawn["layer"] if part["mark"]["type"] == mark]
    return found


def rows(drawn: dict[str, Any], mark: str) -> list[dict[str, Any]]:
    return drawn["datasets"][layer(drawn, mark)["data"]["name"]]


def test_curves_are_over_multiples_and_from_the_best() -> None:
    data = comparison_data([HARD, EASY])
    assert data.select("study", "seeds").rows() == [("hard", 1), ("hard", 1), ("easy", 2), ("easy", 2), ("easy", 2)]
    assert data["multiple"].to_list() == pytest.approx([0.4, 2, 0.1, 2, 10])
    assert data["value"].to_list() == pytest.approx([0.3, 0.4, 0.91, 0.96, 0.1])
    assert data["difference"].to_list() == pytest.approx([-0.1, 0, -0.05, 0, -0.86])


def test_losses_differ_upwards() -> None:
    assert comparison_data([LOSSES])["difference"].to_list() == pytest.approx([0.5, 0])


def test_studies_that_do_not_fit_are_left_out_with_a_reason() -> None:
    entries = [EASY, NOWHERE, UNTUNED, LOSSES]
    reasons = why_left_out(entries)
    assert set(reasons) == {"nowhere", "untuned", "losses"}
    assert "no convergence threshold" in reasons["nowhere"]
    assert "fine-tuned" in reasons["untuned"]
    assert "losses, which cannot share" in reasons["losses"]
    assert comparison_data(entries)["study"].unique().to_list() == ["easy"]
    assert why_left_out([LOSSES]) == {}


def test_with_nothing_to_show_the_reasons_are_the_error() -> None:
    with pytest.raises(StudyError, match=r"nothing to show\. nowhere has no .*threshold.*\. untuned has no PLR"):
        comparison_chart([NOWHERE, UNTUNED])
    with pytest.raises(StudyError, match=r"nothing to show\.$"):
        comparison_chart([])


def test_studies_differ_in_colour_and_in_dash() -> None:
    names = [f"study {i}" for i in range(9)]
    drawn = spec(*(entry(name, {1e-3: [0.5], 2e-2: [0.6]}) for name in names))
    encoding = layer(drawn, "line")["encoding"]
    scales = [encoding[channel]["scale"] for channel in ("color", "strokeDash")]
    assert all(scale["domain"] == names for scale in scales)
    looks = {(colour, str(dash)) for colour, dash in zip(*(scale["range"] for scale in scales), strict=True)}
    assert len(looks) == len(names)
    assert all(encoding[channel]["legend"]["labelLimit"] == 0 for channel in ("color", "strokeDash"))


def test_a_rule_marks_the_threshold_also_where_no_study_crosses_it() -> None:
    drawn = spec(entry("low", {1e-4: [0.5], 1e-3: [0.6]}))
    assert rows(drawn, "rule") == [{"at": 1}]
    scale = layer(drawn, "line")["encoding"]["x"]["scale"]
    assert scale["type"] == "log"
    assert scale["domain"] == pytest.approx([0.01, 1])


def test_marks_tell_their_values_in_points() -> None:
    drawn = spec(EASY)
    tips = {tip["field"]: tip for tip in layer(drawn, "circle")["encoding"]["tooltip"]}
    assert set(tips) == {"study", "plr", "multiple", "value", "difference", "seeds"}
    assert tips["difference"]["title"] == "from its best, points"
    shown = [row["difference"] for row in rows(drawn, "circle")]
    assert shown == pytest.approx([-5, 0, -86])


def test_the_axis_ends_where_differences_no_longer_matter() -> None:
    assert layer(spec(EASY), "line")["encoding"]["y"]["scale"]["domain"][0] == -25
    assert layer(spec(HARD), "line")["encoding"]["y"]["scale"]["domain"][0] == pytest.approx(-10)
    assert "domain" not in layer(spec(LOSSES), "line")["encoding"]["y"]["scale"]


@pytest.mark.parametrize("entries", [[EASY, HARD], [LOSSES], [entry("one", {2e-2: [0.5]})]])
def test_it_draws(entries: list[Entry]) -> None:
    svg = figure_svg(comparison_chart(entries))
    assert all(each.name in svg for each in entries)
    assert "pre-training LR / convergence threshold" in svg
