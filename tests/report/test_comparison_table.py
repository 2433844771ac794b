"""A comparison in words."""

import polars as pl
import pytest

from lratlas.analysis.comparison import COMPARISON
from lratlas.report.charts.comparison import readable

BARE: dict[str, object] = {"study": "a", "elr": False, "seeds": 0, "score": "test_accuracy"}


def table(*rows: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame([BARE | row for row in rows], schema=COMPARISON)


def cells(row: dict[str, object]) -> dict[str, str]:
    words = readable(table(row))
    return dict(zip(words[""], words["a"], strict=True))


@pytest.mark.parametrize(
    ("row", "heading", "cell"),
    [
        (
            {"best_gain": 0.0268, "best_gain_low": -0.0306, "best_gain_high": 0.0842},
            "gain",
            "+2.7 points (−3.1 to 8.4)",
        ),
        ({"best_gain": -0.05}, "gain", "−5 points"),
        ({"best_gain": 0.0}, "gain", "0 points"),
        ({"score": "test_loss", "best_gain": 0.05}, "gain", "+0.05"),
        ({"score": "test_loss", "best_score": 1.23456}, "score", "1.235"),
        ({"best_score": 0.7969}, "score", "79.7%"),
        ({"good_low": 1e-3, "good_high": 4e-3, "good_factor": 4.0}, "good range", "1e-3 to 4e-3, factor 4"),
        ({"good_low": 1e-3, "good_high": 1e-3, "good_factor": 1.0}, "good range", "only 1e-3"),
        ({"best_over_threshold": 1.1547}, "best PLR / threshold", "1.2"),
        ({"best_plr": 7.4989e-3}, "best PLR", "7.5e-3"),
    ],
)
def test_cells_as_people_read_them(row: dict[str, object], heading: str, cell: str) -> None:
    assert cells(row)[f"fine-tuned, {heading}"] == cell


def test_a_boundary_with_its_interval_or_without() -> None:
    found = cells({"convergence": 8.66e-3, "convergence_low": 6.49e-3, "convergence_high": 1e-2, "subregime": 1e-1})
    assert found["convergence threshold (1 to 2)"] == "8.66e-3 (6.49e-3 to 1e-2)"
    assert found["subregime boundary (2A to 2B)"] == "1e-1"


def test_what_is_missing_is_a_dash() -> None:
    found = cells({"score": None})
    told = {"learning rates": "as given", "seeds": "0"}
    assert found == dict.fromkeys(found, "–") | told


def test_studies_are_columns_in_their_order() -> None:
    words = readable(table({"study": "b", "elr": True}, {"study": "study"}))
    assert words.columns == ["", "b", "study"]
    assert words.filter(pl.col("") == "learning rates").row(0) == ("learning rates", "effective", "as given")
