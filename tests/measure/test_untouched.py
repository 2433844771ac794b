"""No measurement changes weights, buffers, modes or data, or draws from a global generator."""

import copy
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from lratlas.data.band_ranges import Band
from lratlas.measure.bands import band_accuracies
from lratlas.measure.curvature import sharpness_measure
from lratlas.measure.features import single_feature_accuracies
from lratlas.measure.norms import group_norms
from lratlas.measure.paths import angular_distance, arc, barrier, interpolate, path_errors
from lratlas.models.convnet import ConvNet
from lratlas.training.evaluate import evaluate_stack, pool_buffers
from lratlas.training.objective import LOSSES
from lratlas.training.program import Program, Strategy, build
from lratlas.training.rules import sgd
from lratlas.training.state import Samples
from training.helpers import Point, lane, point_of, samples_of

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(13, 1, 6, 6, generator=GENERATOR, dtype=torch.float64)
Y = torch.randint(3, (13,), generator=GENERATOR)


class Random(nn.Module):
    """A net with batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.dropout = ConvNet(channels=1, classes=3, width=2), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(self.dropout(x))


SHARPNESS = sharpness_measure(Random().double(), LOSSES["cross_entropy"], sgd(), batch_size=5, probes=2)
Measure = Callable[[Program, Point, Point, Samples], object]
MEASURES: dict[str, Measure] = {
    "evaluate_stack": lambda program, a, _, samples: evaluate_stack(program, a.weights, a.buffers, samples),
    "pooled_buffers": lambda program, a, _, samples: pool_buffers(program, a.weights, a.buffers, samples, batch_size=5),
    "angular_distance": lambda _, a, b, __: angular_distance(a.weights, b.weights),
    "interpolate": lambda program, a, b, _: interpolate(a.weights, b.weights, 0.3, rule=program.rule),
    "arc": lambda program, a, b, _: arc(a.weights, b.weights, 0.3, rule=program.rule),
    "path_errors along the arc": lambda program, a, b, samples: path_errors(
        program, a.weights, b.weights, a.buffers, {"train": samples}, points=3, batch_size=5, path=arc
    ),
    "group_norms": lambda _, a, __, ___: group_norms(a.weights),
    "sharpness_measure": lambda _, a, __, samples: SHARPNESS(lane(a.weights, 0), lane(a.buffers, 0), samples, 1),
    "path_errors": lambda program, a, b, samples: path_errors(
        program, a.weights, b.weights, a.buffers, {"train": samples}, points=3, batch_size=5
    ),
    "barrier": lambda program, a, b, samples: barrier(
        path_errors(program, a.weights, b.weights, a.buffers, {"train": samples}, points=3, batch_size=5)["train"]
    ),
    "single_feature_accuracies": lambda program, a, _, samples: single_feature_accuracies(
        program, a.weights, a.buffers, [samples]
    ),
    "band_accuracies": lambda program, a, _, samples: band_accuracies(
        program, a.weights, a.buffers, samples, [Band(1, 3)], kept=True
    ),
}


def generators() -> tuple[list[int], str, object]:
    """The state of every global generator."""
    state = np.random.get_state()  # noqa: NPY002 - the global one is what is watched
    return torch.get_rng_state().tolist(), repr(tuple(state)), random.getstate()


@pytest.mark.parametrize("strategy", ["stack", "single"])
@pytest.mark.parametrize("name", MEASURES)
def test_a_measurement_changes_nothing(name: str, strategy: Strategy) -> None:
    torch.manual_seed(1)
    models = [Random().double() for _ in range(2)]
    models[1].eval()
    first, second = (point_of([model]) for model in models)
    samples = samples_of(X, Y, first)
    given = copy.deepcopy((first, second, samples.x, samples.y, [model.state_dict() for model in models]))
    program = build(models[0], LOSSES["cross_entropy"], sgd(), compiled=False, strategy=strategy)
    before = generators()
    MEASURES[name](program, first, second, samples)
    assert generators() == before
    for point, kept in ((first, given[0]), (second, given[1])):
        for now, then in ((point.weights, kept.weights), (point.buffers, kept.buffers)):
            assert all(torch.equal(value, then[key]) for key, value in now.items())
    assert torch.equal(samples.x, given[2])
    assert torch.equal(samples.y, given[3])
    assert [model.training for model in models] == [True, False]
    for model, state in zip(models, given[4], strict=True):
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
