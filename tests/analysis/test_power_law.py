"""The power law of the epochs to convergence recovers synthetic parameters, and says nothing where it cannot."""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lratlas.analysis.power_law import power_law, rising
from lratlas.tables import SCHEMAS, empty

# Shares of the way from the first PLR to the threshold, closer and closer to it.
WAY = [0.0, 0.3, 0.5, 0.7, 0.8, 0.87, 0.92, 0.96]


def convergence(plrs: Sequence[float], epochs: Sequence[Sequence[float | None]]) -> pl.DataFrame:
    """The table with epochs [PLR][seed]."""
    rows = [
        {"plr": plr, "seed": seed, "epochs": None if count is None else round(count)}
        for plr, counts in zip(plrs, epochs, strict=True)
        for seed, count in enumerate(counts)
    ]
    return pl.DataFrame(rows, schema=SCHEMAS["convergence"])


def law_of(plrs: Sequence[float], *, threshold: float, exponent: float, scale: float) -> list[float]:
    return [scale * (threshold - plr) ** -exponent for plr in plrs]


def values(table: pl.DataFrame, column: str = "value") -> dict[str, float]:
    return dict(zip(table["parameter"], table[column], strict=True))


@given(
    threshold=st.floats(-5, 1).map(lambda power: 10**power),
    exponent=st.floats(0.3, 4),
    reach=st.floats(0.5, 0.95),
    first=st.floats(0.0, 0.8),
    fewest=st.floats(1e7, 1e9),
)
@settings(max_examples=60)
def test_exact_data_give_back_their_parameters(
    threshold: float, exponent: float, reach: float, first: float, fewest: float
) -> None:
    # Many epochs, so that rounding them to whole numbers adds no noise.
    plrs = [threshold * (first + (1 - first) * reach * share) for share in WAY]
    scale = fewest * (threshold - plrs[0]) ** exponent
    table = power_law(
        convergence(plrs, [[e] for e in law_of(plrs, threshold=threshold, exponent=exponent, scale=scale)])
    )
    found = values(table)
    assert list(found) == ["threshold", "exponent", "scale"]
    assert found["threshold"] == pytest.approx(threshold, rel=1e-3)
    assert found["exponent"] == pytest.approx(exponent, rel=5e-3)
    plr = plrs[3]
    assert found["scale"] * (found["threshold"] - plr) ** -found["exponent"] == pytest.approx(
        scale * (threshold - plr) ** -exponent, rel=1e-3
    )


def covered(*, seeds: int, noise: float, draws: int) -> dict[str, float]:
    """The share of noisy tables whose intervals hold the true parameters."""
    truth = {"threshold": 0.01, "exponent": 1.2, "scale": 0.5}
    plrs = [0.002 + 0.008 * share for share in WAY]
    exact = np.array(law_of(plrs, **truth))
    held = dict.fromkeys(truth, 0)
    for draw in range(draws):
        shift = np.random.default_rng(draw).normal(scale=noise, size=(len(plrs), seeds))
        table = power_law(convergence(plrs, (exact[:, None] * np.exp(shift)).tolist()))
        low, high = values(table, "low"), values(table, "high")
        for name, true in truth.items():
            held[name] += low[name] <= true <= high[name]
    return {name: count / draws for name, count in held.items()}


@pytest.mark.parametrize(("seeds", "noise", "draws"), [(5, 0.15, 25), (1, 0.08, 80), (2, 0.08, 80)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(seeds: int, noise: float, draws: int) -> None:
    # A count of 95% of 25 falls under 0.8 once in 600 times.
    assert min(covered(seeds=seeds, noise=noise, draws=draws).values()) >= 0.8


def test_the_numbers_of_the_paper_put_the_threshold_a_little_above_the_last() -> None:
    table = power_law(convergence([1e-4, 2.5e-4, 3e-4, 3.5e-4, 3.9e-4], [[18], [40], [85], [400], [2600]]))
    assert 3.9e-4 < values(table)["threshold"] <= 4.2e-4
    assert values(table, "low")["threshold"] > 3.9e-4
    assert values(table)["exponent"] > 0


def test_four_points_have_no_interval_and_three_no_law() -> None:
    plrs = [0.002 + 0.008 * share for share in WAY[::2]]
    epochs = [[count] for count in law_of(plrs, threshold=0.01, exponent=1.0, scale=1e4)]
    table = power_law(convergence(plrs, epochs))
    assert values(table)["threshold"] == pytest.approx(0.01, rel=1e-3)
    assert table.select("low", "high").null_count().row(0) == (3, 3)
    assert power_law(convergence(plrs[1:], epochs[1:])).equals(empty("power_law"))
    assert power_law(empty("convergence")).equals(empty("power_law"))


def test_the_fall_at_small_plrs_does_not_count() -> None:
    plrs = [0.004 + 0.006 * share for share in WAY]
    epochs = [[count] for count in law_of(plrs, threshold=0.01, exponent=1.0, scale=1e6)]
    alone = power_law(convergence(plrs, epochs))
    assert power_law(convergence([1e-4, 1e-3, *plrs], [[10**12], [10**11], *epochs])).equals(alone)


def test_seeds_that_never_converged_count_as_infinite() -> None:
    plrs, n = [1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3], None
    epochs = [[90, 90, n], [20, 10, 30], [40, n, 50], [70, 80, 90], [n, 200, n], [300, 300, 300]]
    # Medians: 90, 20, 50, 80, infinite; what lies beyond does not belong to the rise.
    part = rising(convergence(plrs, epochs))
    assert part.rows() == [(2e-3, 20.0), (3e-3, 50.0), (4e-3, 80.0)]


def test_half_of_the_seeds_are_not_enough_and_a_missing_run_is_no_failure() -> None:
    table = convergence([1e-3, 2e-3, 3e-3], [[10, 20], [30, 40], [50, None]])
    assert rising(table)["epochs"].to_list() == [15.0, 35.0]
    assert rising(table.filter(pl.col("epochs").is_not_null()))["epochs"].to_list() == [15.0, 35.0, 50.0]


def test_nothing_rises_where_nothing_converges() -> None:
    assert rising(convergence([1e-3, 2e-3], [[None], [None]])).is_empty()
    assert rising(empty("convergence")).schema == {"plr": pl.Float64, "epochs": pl.Float64}


def test_a_failing_seed_near_the_threshold_is_borne() -> None:
    plrs = [0.002 + 0.008 * share for share in WAY]
    exact = law_of(plrs, threshold=0.01, exponent=1.0, scale=1e5)
    epochs: list[list[float | None]] = [[0.9 * e, e, e, e, 1.1 * e] for e in exact]
    epochs[-1] = [None, exact[-1], exact[-1], exact[-1], None]
    found = power_law(convergence(plrs, epochs))
    # Infinite above, so the median is the middle one of the three that converged, or more.
    assert values(found)["threshold"] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    "epochs",
    [
        [1e6 * math.exp(0.5 * i) for i in range(8)],  # an exponential has no threshold
        [1e6 * (1 + 0.02 * i) for i in range(8)],  # nor has a straight line
        [1e6, 1e6 + 1, 1e6 + 1, 1e6 + 1, 1e6 + 1, 1e6 + 1, 1e6 + 1, 1e9],  # a jump has it at the last PLR
    ],
)
def test_data_without_a_threshold_have_no_law(epochs: list[float]) -> None:
    plrs = [1e-3 * (i + 1) for i in range(8)]
    assert power_law(convergence(plrs, [[count] for count in epochs])).is_empty()


def test_a_threshold_that_few_redrawn_seeds_have_gets_no_interval() -> None:
    plrs = [1e-3 * (i + 1) for i in range(8)]
    sharp = law_of(plrs, threshold=8.3e-3, exponent=1.0, scale=1e6)
    flat = [sharp[0] * math.exp(0.4 * i) for i in range(8)]
    # The medians follow a law; a redrawn study with the last seed twice (7 of 27) follows an exponential.
    table = power_law(convergence(plrs, [[a, 1.01 * a, 1.02 * b] for a, b in zip(sharp, flat, strict=True)]))
    assert values(table)["threshold"] == pytest.approx(8.3e-3, rel=1e-2)
    assert table.select("low", "high").null_count().row(0) == (3, 3)
