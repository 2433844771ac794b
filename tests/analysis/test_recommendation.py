from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest

from lratlas.analysis.recommendation import recommend
from lratlas.recommendation import Recommendation
from lratlas.tables import SCHEMAS, empty

PLRS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


def advised(
    tuned: Mapping[float, float], averaged: Mapping[float, float] | None = None, *, column: str = "test_accuracy"
) -> Recommendation | None:
    shared = {"seed": 0, "diverged": False}
    rows: list[dict[str, Any]] = [{"stage": "finetune", "flr": 1e-4, "plr": p, column: v} for p, v in tuned.items()]
    rows += [{"stage": "finetune", "flr": 1e-3, "plr": p, column: 0.99} for p in tuned]
    rows += [{"stage": "average", "count": 5, "plr": p, column: v} for p, v in (averaged or {}).items()]
    runs = pl.DataFrame([shared | row for row in rows], schema=SCHEMAS["runs"])
    regimes = pl.DataFrame([{"plr": p, "regime": "2A"} for p in PLRS], schema=SCHEMAS["regimes"])
    return recommend({"runs": runs, "regimes": regimes}, elr=False)


def test_neighbours_that_are_as_good_belong_to_the_range() -> None:
    values = (0.70, 0.795, 0.80, 0.795, 0.70)
    found = advised(dict(zip(PLRS, values, strict=True)))
    assert found is not None
    assert (found.low, found.lr, found.high) == (3e-3, 1e-2, 3e-2)
    assert (found.finish, found.flr, found.count, found.at_edge) == ("fine-tune", 1e-4, None, False)
    as_good = (False, True, True, True, False)
    assert found.evidence.rows() == [*zip(PLRS, values, [1] * 5, as_good, strict=True)]
    assert found.statement == (
        "Train with a constant learning rate between 3e-3 and 3e-2, best 1e-2, then fine-tune with 1e-4: "
        "test accuracy 80.0%."
    )


def test_the_better_way_to_finish_is_recommended_with_its_own_range() -> None:
    tuned = dict(zip(PLRS, (0.70, 0.80, 0.80, 0.80, 0.70), strict=True))
    found = advised(tuned, dict(zip(PLRS, (0.70, 0.75, 0.81, 0.85, 0.70), strict=True)))
    assert found is not None
    assert (found.low, found.lr, found.high) == (3e-2, 3e-2, 3e-2)
    assert (found.finish, found.flr, found.count, found.value) == ("average", None, 5, 0.85)
    assert "learning rate of 3e-2, then average the weights of 5 checkpoints" in found.statement


@pytest.mark.parametrize("best", [PLRS[0], PLRS[-1]])
def test_the_edge_of_the_grid_is_marked(best: float) -> None:
    found = advised({plr: 0.9 if plr == best else 0.5 for plr in PLRS})
    assert found is not None
    assert found.at_edge
    assert found.statement.endswith("This is the edge of the tested range: extend it, as the best LR may be outside.")


def test_of_losses_the_smallest_is_best() -> None:
    found = advised(dict(zip(PLRS, (3.0, 2.0, 1.0, 2.0, 3.0), strict=True)), column="test_loss")
    assert found is not None
    assert (found.lr, found.metric) == (1e-2, "test_loss")


def test_nothing_finished_is_no_recommendation() -> None:
    assert recommend({"runs": empty("runs"), "regimes": empty("regimes")}, elr=False) is None
