"""Studies in one table, a row each."""

import math
from collections.abc import Callable, Mapping, Sequence

import polars as pl
import pytest

from lratlas.analysis.boundaries import boundaries
from lratlas.analysis.comparison import COMPARISON, Entry, comparison
from lratlas.analysis.regimes import regimes
from lratlas.tables import SCHEMAS, empty

Study = Callable[..., dict[str, pl.DataFrame]]
CHANCE = math.log(2)
KINDS = ["converged", "converged", "plateau", "plateau", "chance"]
NOTHING = {name: empty(name) for name in SCHEMAS}


def finished(tables: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    return tables | {
        "regimes": regimes(tables, chance_loss=CHANCE),
        "boundaries": boundaries(tables, chance_loss=CHANCE),
    }


def with_stage(
    tables: dict[str, pl.DataFrame], stage: str, scores: Mapping[int, Sequence[float]], **keys: float
) -> dict[str, pl.DataFrame]:
    """Add runs of a second stage: place in the grid to test accuracy per seed."""
    plrs = tables["runs"]["plr"].unique().sort()
    rows = [
        {"run": f"{stage}{place}{seed}", "stage": stage, "plr": plrs[place], "seed": seed, "test_accuracy": score}
        | keys
        for place, accuracies in scores.items()
        for seed, score in enumerate(accuracies)
    ]
    return tables | {"runs": pl.concat([tables["runs"], pl.DataFrame(rows, schema=SCHEMAS["runs"])])}


def row(tables: Mapping[str, pl.DataFrame], *, elr: bool = False) -> dict[str, object]:
    (only,) = comparison([Entry(name="a", tables=tables, elr=elr)]).to_dicts()
    return only


def test_a_row_for_each_study_in_the_order_given() -> None:
    entries = [Entry(name=name, tables=NOTHING, elr=name == "b", task=f"task {name}") for name in ("b", "a", "c")]
    table = comparison([*entries, Entry(name="d", tables=NOTHING, elr=False, batch_size="full")])
    assert table.schema == COMPARISON
    assert table["study"].to_list() == ["b", "a", "c", "d"]
    assert table["elr"].to_list() == [True, False, False, False]
    assert table["task"].to_list() == ["task b", "task a", "task c", None]
    assert table["batch_size"].to_list() == [None, None, None, "full"]
    assert comparison([]).schema == COMPARISON


def test_boundaries_are_those_of_the_study(study: Study) -> None:
    tables = finished(study([[kind] * 3 for kind in KINDS], barriers={2: 0.01, 3: 0.1}))
    found = row(tables)
    for boundary in tables["boundaries"].to_dicts():
        name = boundary["boundary"]
        ends = (found[name], found[f"{name}_low"], found[f"{name}_high"])
        assert ends == (boundary["value"], boundary["low"], boundary["high"])
        assert None not in ends
    assert found["seeds"] == 3


def test_the_best_plr_as_a_multiple_of_the_threshold(study: Study) -> None:
    tables = with_stage(study([[kind] * 3 for kind in KINDS]), "finetune", {1: [0.8] * 3, 2: [0.84] * 3}, flr=1e-5)
    found = row(
        finished(with_stage(tables, "average", {1: [0.9] * 3, 2: [0.91, 0.92, 0.93], 3: [0.93, 0.94, 0.95]}, count=5))
    )
    # The grid is 1e-4 times powers of 10^0.25; the threshold lies half a step above place 1.
    half = 10**0.125
    assert found["convergence"] == pytest.approx(1e-4 * 10**0.25 * half)
    assert found["best_plr"] == pytest.approx(1e-4 * 10**0.5)
    assert found["best_over_threshold"] == pytest.approx(half)
    assert found["average_over_threshold"] == pytest.approx(half**3)
    assert (found["average_count"], found["best_flr"]) == (5, 1e-5)
    assert (found["best_score"], found["average_score"]) == (pytest.approx(0.84), pytest.approx(0.94))
    assert (found["best_gain"], found["average_gain"]) == (pytest.approx(0.04), pytest.approx(0.02))
    # Student's t for two degrees of freedom, 4.303, times the standard error, 0.01 / sqrt(3).
    assert found["average_gain_high"] == pytest.approx(0.02 + 4.3027 * 0.01 / math.sqrt(3), rel=1e-4)
    assert found["good_factor"] == pytest.approx(1)


def test_the_good_range_as_a_factor(study: Study) -> None:
    tables = study([[kind] for kind in KINDS])
    found = row(finished(with_stage(tables, "finetune", {1: [0.80], 2: [0.81], 3: [0.805], 4: [0.5]}, flr=1e-5)))
    assert (found["good_low"], found["good_high"]) == (pytest.approx(1e-4 * 10**0.25), pytest.approx(1e-4 * 10**0.75))
    assert found["good_factor"] == pytest.approx(10**0.5)


@pytest.mark.parametrize("kind", ["diverged", "chance", "descending"])
def test_a_study_without_threshold_or_fine_tuning_has_nulls(study: Study, kind: str) -> None:
    found = row(finished(study([[kind]] * 3)))
    known = {"study", "elr", "seeds", "score", *(name for name in found if name.startswith("divergence"))}
    assert found["seeds"] == 1
    assert {name for name, value in found.items() if value is not None} <= known


def test_one_seed_has_gains_without_intervals(study: Study) -> None:
    found = row(finished(with_stage(study([[kind] for kind in KINDS]), "finetune", {1: [0.8], 2: [0.9]}, flr=1e-5)))
    assert found["best_gain"] == pytest.approx(0.1)
    assert found["best_gain_low"] is None
    assert found["convergence"] is not None
    assert found["convergence_low"] is None


def test_without_a_threshold_a_best_plr_has_no_multiple(study: Study) -> None:
    found = row(finished(with_stage(study([["plateau"]] * 3), "finetune", {1: [0.8], 2: [0.9]}, flr=1e-5)))
    assert found["best_plr"] is not None
    assert (found["best_over_threshold"], found["best_gain"]) == (None, None)


def test_studies_with_accuracies_and_with_losses_name_their_score(study: Study) -> None:
    losses = finished(study([[kind] for kind in KINDS], accuracies=False))
    accuracies = finished(study([[kind] for kind in KINDS]))
    entries = [Entry(name=str(i), tables=tables, elr=False) for i, tables in enumerate((losses, accuracies, NOTHING))]
    assert comparison(entries)["score"].to_list() == ["test_loss", "test_accuracy", None]
