import numpy as np
import polars as pl
import pytest

from lratlas.analysis.claims.evidence import per_seed


def frame(scores: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(
        [(float(i), seed, float(v)) for i, row in enumerate(scores) for seed, v in enumerate(row)],
        schema=["plr", "seed", "score"],
        orient="row",
    )


def test_means_over_plrs_take_only_those_that_every_seed_has() -> None:
    scores = frame(np.array([[1.0, 2.0], [3.0, 4.0], [10.0, np.nan], [7.0, 7.0]]))
    found = per_seed(scores, [0.0, 1.0, 2.0], pl.col("score"), [0, 1])
    assert found == pytest.approx([2.0, 3.0])
    assert np.isnan(per_seed(scores, [2.0], pl.col("score"), [0, 1])).all()
