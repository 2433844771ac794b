import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lratlas.analysis.claims.evidence import best_by_others, per_seed

SCORES = st.integers(3, 6).flatmap(
    lambda seeds: st.integers(1, 4).flatmap(
        lambda options: arrays(np.float64, (options, seeds), elements=st.floats(0, 1, width=32))
    )
)


def frame(scores: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(
        [(float(i), seed, float(v)) for i, row in enumerate(scores) for seed, v in enumerate(row)],
        schema=["plr", "seed", "score"],
        orient="row",
    )


@given(SCORES)
def test_a_seed_has_no_say_in_the_choice_that_it_judges(scores: np.ndarray) -> None:
    count = scores.shape[1]
    found = best_by_others(frame(scores), ["plr"], pl.col("score"), range(count))
    for seed in range(count):
        others = np.delete(scores, seed, axis=1).mean(axis=1)
        allowed = scores[others >= others.max() - 1e-12, seed]
        assert np.isclose(allowed, found[seed], rtol=1e-12, atol=0).any()


def test_choosing_among_equals_gains_nothing() -> None:
    """Picking the best of twenty equal options by its own scores would gain 0.8 here; by the others' it gains none."""
    rng = np.random.default_rng(0)
    gains = [
        best_by_others(frame(rng.normal(size=(20, 5))), ["plr"], pl.col("score"), range(5)).mean() for _ in range(300)
    ]
    assert abs(np.mean(gains)) < 4 * np.std(gains) / np.sqrt(300)


def test_options_that_lack_a_seed_are_left_out() -> None:
    scores = frame(np.array([[0.5, 0.5, 0.5], [0.9, 0.9, 0.9]])).filter((pl.col("plr") == 0) | (pl.col("seed") > 0))
    assert best_by_others(scores, ["plr"], pl.col("score"), range(3)).tolist() == [0.5] * 3
    assert np.isnan(best_by_others(scores.filter(plr=1), ["plr"], pl.col("score"), range(3))).all()


def test_means_over_plrs_take_only_those_that_every_seed_has() -> None:
    scores = frame(np.array([[1.0, 2.0], [3.0, 4.0], [10.0, np.nan], [7.0, 7.0]]))
    found = per_seed(scores, [0.0, 1.0, 2.0], pl.col("score"), [0, 1])
    assert found == pytest.approx([2.0, 3.0])
    assert np.isnan(per_seed(scores, [2.0], pl.col("score"), [0, 1])).all()
