"""Charts that custom measurements declare: what they show, and that they are drawn."""

import math
from typing import Any

import polars as pl
import pytest

from lratlas.errors import StudyError
from lratlas.measure.base import Chart
from lratlas.report.charts.declared import make_chart, make_data, make_text
from lratlas.report.figures import figure_svg
from lratlas.tables import SCHEMAS, Tables


def rows(*values: tuple[str, str, float, float | None, int, float, float]) -> pl.DataFrame:
    names = ("run", "layer", "plr", "flr", "seed", "size", "value")
    stage = pl.when(pl.col("flr").is_null()).then(pl.lit("pretrain")).otherwise(pl.lit("finetune"))
    return pl.DataFrame(values, schema=names, orient="row").with_columns(stage=stage, count=pl.lit(None, pl.Int64))


TOY = rows(
    ("a", "in", 0.1, None, 0, 1.0, 1.0),
    ("a", "out", 0.1, None, 0, 2.0, 2.0),
    ("b", "in", 0.1, None, 1, 3.0, 3.0),
    ("b", "out", 0.1, None, 1, 4.0, 4.0),
    ("c", "in", 0.1, 0.01, 0, 5.0, 7.0),
    ("lost", "in", 0.1, 0.01, 1, 6.0, 1e9),
)
TABLES: Tables = {
    "toy": TOY,
    "runs": pl.DataFrame({"run": ["a", "b", "c", "lost"], "diverged": [False, False, False, True]}),
    "regimes": pl.DataFrame(
        [{"plr": 0.1, "regime": "1"}, {"plr": 0.3, "regime": "3"}], schema=SCHEMAS["regimes"], strict=False
    ),
}


def one(data: pl.DataFrame, **where: Any) -> dict[str, Any]:
    return data.filter(**where).row(0, named=True)


def test_lines_are_means_over_seeds_of_each_models_mean() -> None:
    data = make_data(TABLES, "toy", Chart(y="value")).filter(pl.col("seed").is_null())
    before, after = one(data, stage="pretrain"), one(data, stage="finetune")
    # The two models have the means 1.5 and 3.5, whose standard deviation is the root of 2.
    assert (before["mean"], before["high"], before["seeds"]) == (2.5, pytest.approx(2.5 + math.sqrt(2)), 2)
    assert (after["mean"], after["low"], after["series"]) == (7.0, 7.0, "FLR 1e-2"), "the run that diverged is left out"


def test_a_series_has_a_line_for_each_value() -> None:
    data = make_data(TABLES, "toy", Chart(y="value", series="layer"))
    assert one(data, model="pre-trained", layer="in")["mean"] == 2.0
    assert one(data, model="pre-trained", layer="out")["mean"] == 3.0
    assert data["model"].unique(maintain_order=True).to_list() == ["pre-trained", "fine-tuned, FLR 1e-2"]


def test_against_another_column_every_row_has_a_mark() -> None:
    data = make_data(TABLES, "toy", Chart(y="value", x="size"))
    assert sorted(data.select("size", "value").iter_rows()) == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 7)]


@pytest.mark.parametrize(
    "chart", [Chart(y="value"), Chart(y="value", series="layer"), Chart(y="value", x="size", series="layer")]
)
@pytest.mark.parametrize("shaded", [True, False])
def test_every_kind_is_drawn(chart: Chart, shaded: bool) -> None:
    tables = TABLES if shaded else {**TABLES, "regimes": TABLES["regimes"].clear()}
    drawing = make_chart(tables, "toy", chart)
    assert figure_svg(drawing).startswith("<svg")
    assert drawing.to_dict()["description"] == make_text("toy", chart).alt


def test_words_name_what_is_shown() -> None:
    text = make_text("small_weights", Chart(y="share_below", series="layer"))
    assert text.heading == "Small weights"
    assert text.caption.startswith("Share below against the pre-training LR, by layer, from the table small_weights")
    assert make_text("toy", Chart(y="value", title="How small")).heading == "How small"


def test_without_a_number_there_is_no_chart() -> None:
    empty = {**TABLES, "toy": TOY.with_columns(value=pl.lit(None, pl.Float64))}
    with pytest.raises(StudyError, match="The toy chart needs a value in table 'toy'"):
        make_data(empty, "toy", Chart(y="value"))
