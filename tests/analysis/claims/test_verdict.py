import numpy as np
import pytest

from lratlas.analysis.claims.evidence import exceeds, opposite, together, what_would_tell
from lratlas.analysis.estimates import Gain, over_seeds


def gain(mean: float, reach: float | None, seeds: int = 5) -> Gain:
    ends = (None, None) if reach is None else (mean - reach, mean + reach)
    return Gain(mean=mean, low=ends[0], high=ends[1], seeds=seeds)


@pytest.mark.parametrize(
    ("effect", "verdict"),
    [
        (gain(0.10, 0.05), "supported"),
        (gain(0.03, 0.05), "inconclusive"),
        (gain(-0.10, 0.05), "contradicted"),
        (gain(0.001, 0.003), "contradicted"),
        (gain(0.10, None, seeds=2), "inconclusive"),
    ],
)
def test_the_whole_interval_decides(effect: Gain, verdict: str) -> None:
    assert exceeds(effect, 0.0, negligible=0.005) == verdict


def test_no_effect_is_rarely_called_one() -> None:
    """A two-sided 95% interval errs upwards in one study of forty."""
    rng = np.random.default_rng(0)
    verdicts = [exceeds(over_seeds(rng.normal(size=5)), 0.0) for _ in range(2000)]
    assert 0.015 < verdicts.count("supported") / 2000 < 0.035
    assert 0.015 < verdicts.count("contradicted") / 2000 < 0.035


def test_parts_make_a_whole() -> None:
    assert together("supported", "supported") == "supported"
    assert together("supported", "inconclusive") == "inconclusive"
    assert together("contradicted", "inconclusive") == "contradicted"
    assert [opposite(v) for v in ("supported", "contradicted", "inconclusive")] == [
        "contradicted",
        "supported",
        "inconclusive",
    ]


def test_the_seeds_asked_for_would_tell() -> None:
    """With as many seeds of the same spread, the interval is as wide as its distance to the limit, within a seed."""
    told = what_would_tell(gain(0.02, 0.04, seeds=5))
    assert told == "5 seeds are too few; about 20 should be enough"
    assert "too small to detect with fewer than 200 seeds" in what_would_tell(gain(0.0001, 0.05))
    assert what_would_tell(gain(0.1, None, seeds=2)).startswith("2 seeds are too few")
