"""Models tried with other weights, and left as they were."""

import copy

import pytest
import torch
from torch import Tensor, nn

from lratlas.errors import TaskError
from lratlas.models.mlp import MLP
from lratlas.training.invariance import place_rule, run_trial
from lratlas.training.rules import sphere_sgd
from models.helpers import images

POINTS = images(8, 5).float()


class Cast(nn.Module):
    """A model whose code takes no other number format than its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.float())


def test_a_trial_draws_the_same_masks_every_time_and_leaves_buffers_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
    trial = run_trial(model, POINTS)
    assert torch.equal(trial.outputs(trial.weights), trial.outputs(trial.weights))
    assert (trial.outputs(trial.weights) == 0).any()
    assert all(torch.equal(value, model.get_buffer(name).to(value)) for name, value in trial.model.named_buffers())


def test_a_rule_on_a_sphere_leaves_the_model_as_it_is() -> None:
    torch.manual_seed(0)
    model, x = MLP(5, (6, 7), 3), POINTS
    state = copy.deepcopy(model.state_dict())
    found = place_rule(sphere_sgd(other_lr=0.1), model, x)
    assert set(found.free) >= {"layers.6.weight", "layers.6.bias"}
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    with pytest.raises(TaskError, match=r"scaling changes them through .*layers\.6\.weight"):
        place_rule(sphere_sgd(), Cast(model), x)
