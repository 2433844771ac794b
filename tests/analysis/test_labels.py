import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lratlas.analysis.labels import Votes, change_point, decide
from lratlas.thresholds import Thresholds


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=8))
def test_the_change_point_is_the_lowest_of_the_best_cuts(places: list[tuple[bool, bool]]) -> None:
    wrong = [
        sum(d and (u if place < cut else not u) for place, (u, d) in enumerate(places))
        for cut in range(len(places) + 1)
    ]
    upper, decided = (np.array([[pair[side] for pair in places]], dtype=np.bool_) for side in (0, 1))
    assert change_point(upper, decided).tolist() == [wrong.index(min(wrong))]


def noise(seed: int, *, seeds: int = 6, plrs: int = 4) -> Votes:
    """Plateaus slightly above chance with random barriers, a few runs and barriers missing."""
    rng = np.random.default_rng(seed)
    everywhere = np.ones((plrs, seeds), dtype=np.bool_)
    nowhere = np.zeros((plrs, seeds), dtype=np.bool_)
    finite = rng.random((plrs, seeds)) < 0.9
    barriers = rng.random((3, plrs, seeds))
    barriers[rng.random(barriers.shape) < 0.2] = np.nan
    return Votes(
        plrs=np.arange(1.0, plrs + 1),
        seeds=np.arange(seeds),
        present=everywhere,
        finite=finite,
        excess=np.where(finite, rng.normal(0.01, 0.01, (plrs, seeds)), np.nan),
        loss=np.where(finite, 0.5, np.inf),
        converged=nowhere,
        unmoved=nowhere,
        falling=nowhere,
        descending=nowhere,
        tested=everywhere,
        unbounded=False,
        barriers=barriers,
        spreads=rng.random((plrs, seeds)),
    )


@pytest.mark.parametrize("seed", range(5))
def test_weights_are_the_same_as_repeated_seeds(seed: int) -> None:
    """A weighted decision equals the plain one on the resampled seeds, computed one resample at a time."""
    ballot = noise(seed)
    rng = np.random.default_rng(100 + seed)
    counts = rng.multinomial(6, np.full(6, 1 / 6), size=20)
    decision = decide(ballot, counts.astype(np.float64), thresholds=Thresholds())
    for row, count in enumerate(counts):
        drawn = np.repeat(np.arange(6), count)
        barriers = ballot.barriers[:, :, drawn]
        for place in range(4):
            known = [pair[~np.isnan(pair)] for pair in barriers[:, place]]
            medians = [float(np.median(pair)) for pair in known if len(pair)]
            found = decision.barrier[row, place]
            assert found == pytest.approx(max(medians)) if medians else np.isnan(found)
            excess = ballot.excess[place, drawn]
            excess = excess[~np.isnan(excess)]
            broken = len(excess) < len(drawn) / 2
            p_value = decision.above_chance_p[row, place]
            above = bool(len(excess)) and (p_value < 0.01 or excess.min() > 0.02)
            assert (decision.labels[row, place] == "3") == (broken or not above)
            if len(set(excess.tolist())) > 1:
                statistic = (excess.mean() - 0.005) / (excess.std(ddof=1) / np.sqrt(len(excess)))
                assert p_value == pytest.approx(student_tail(statistic, len(excess) - 1), rel=1e-5)
            else:
                assert np.isnan(p_value)


def student_tail(statistic: float, freedom: int) -> float:
    """Tail of Student's t by simulation-free integration of its density, P(T > statistic)."""
    angle = np.arctan(statistic / np.sqrt(freedom))
    grid = np.linspace(angle, np.pi / 2, 20_001)
    density = np.cos(grid) ** (freedom - 1)
    whole = np.cos(np.linspace(-np.pi / 2, np.pi / 2, 20_001)) ** (freedom - 1)
    return float(np.trapezoid(density, grid) / np.trapezoid(whole, np.linspace(-np.pi / 2, np.pi / 2, 20_001)))
