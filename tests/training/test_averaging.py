"""SWA-k against plain means of the checkpoints."""

import pytest
import torch

from lratlas.training.averaging import Tails, add_checkpoint, average_tails
from lratlas.training.rules import sgd, sphere_sgd
from lratlas.training.sphere import Weights

COUNTS = (1, 2, 5, 10)


def checkpoints(dtype: torch.dtype) -> list[Weights]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (2, 3, 4, 5), "b": (2, 3, 6)}
    return [
        {name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for name, shape in shapes.items()}
        for _ in range(10)
    ]


def tails_of(points: list[Weights]) -> Tails:
    tails: Tails = {}
    for index, point in enumerate(points):
        tails = add_checkpoint(tails, COUNTS, point, rank=len(points) - 1 - index)
    return tails


def test_swa_k_is_the_mean_of_the_last_k_checkpoints() -> None:
    points = checkpoints(torch.float64)
    means = average_tails(tails_of(points), rule=sgd(), like=points[-1])
    assert set(means) == set(COUNTS)
    for count in COUNTS:
        for name in points[0]:
            expected = torch.stack([point[name] for point in points[-count:]]).mean(0)
            torch.testing.assert_close(means[count][name], expected, rtol=0, atol=1e-14)


def test_swa_1_is_the_last_checkpoint_bit_for_bit() -> None:
    points = checkpoints(torch.float32)
    last = average_tails(tails_of(points), rule=sgd(), like=points[-1])[1]
    assert all(torch.equal(last[name], points[-1][name]) for name in last)


def test_sums_are_in_float64() -> None:
    points = checkpoints(torch.float32)
    mean = average_tails(tails_of(points), rule=sgd(), like=points[-1])[10]
    for name, value in mean.items():
        assert value.dtype == torch.float32
        exact = torch.stack([point[name].double() for point in points]).mean(0)
        assert torch.equal(value, exact.float())


def test_on_a_sphere_the_mean_is_rescaled_to_the_radius() -> None:
    points = checkpoints(torch.float64)
    free = average_tails(tails_of(points), rule=sgd(), like=points[-1])[5]
    bound = average_tails(tails_of(points), rule=sphere_sgd(radius=3.0), like=points[-1])[5]
    for seed in range(2):
        for lane in range(3):
            vectors = [torch.cat([each[name][seed, lane].flatten() for name in each]) for each in (free, bound)]
            torch.testing.assert_close(vectors[1], 3 * vectors[0] / vectors[0].norm(), rtol=0, atol=1e-13)


def test_adding_a_checkpoint_leaves_the_old_sums_alone() -> None:
    points = checkpoints(torch.float64)
    before = tails_of(points[-2:])
    kept = before[2]["a"].clone()
    add_checkpoint(before, COUNTS, points[0], rank=0)
    assert torch.equal(before[2]["a"], kept)


@pytest.mark.parametrize("count", [2, 5])
def test_a_count_waits_for_its_first_checkpoint(count: int) -> None:
    point = checkpoints(torch.float64)[0]
    assert add_checkpoint({}, [count], point, rank=count) == {}
    assert list(add_checkpoint({}, [count], point, rank=count - 1)) == [count]
