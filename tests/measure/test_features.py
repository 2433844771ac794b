"""Single-feature accuracies of models whose features are known."""

import torch
from torch import Tensor, nn

from lratlas.measure.features import single_feature_accuracies
from lratlas.training.objective import LOSSES
from lratlas.training.program import build
from lratlas.training.rules import sgd
from lratlas.training.state import Samples

COUNT = 101


def feature_sets() -> list[tuple[Tensor, Tensor]]:
    """In set f the sign of input f is the label; the other inputs say nothing."""
    x = torch.randn(3, COUNT, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [(x[feature], (x[feature, :, feature] > 0).double()) for feature in range(3)]


def test_each_run_is_scored_on_each_set() -> None:
    sets = feature_sets()
    samples = [
        Samples(
            x=x[None],
            y=y[None],
            which=torch.tensor([0, 0]),
            shares=torch.full((2, 2), 0.5, dtype=torch.float64),
            frozen={},
        )
        for x, y in sets
    ]
    # Seed 0: one run per input, each using it alone; seed 1: the same but the labels turned round.
    weights = torch.stack([torch.eye(3), -torch.eye(3)]).double()[:, :, None]
    model = nn.Linear(3, 1, bias=False)
    program = build(model, LOSSES["binary_cross_entropy"], sgd(), compiled=False)
    accuracies = single_feature_accuracies(program, {"weight": weights}, {}, samples)
    assert accuracies.shape == (3, 2, 3)
    assert accuracies.dtype == torch.float64
    for feature, (x, y) in enumerate(sets):
        for lane in range(3):
            right = ((x[:, lane] > 0) == (y > 0.5)).double().mean()
            torch.testing.assert_close(accuracies[feature, 0, lane], right)
            torch.testing.assert_close(accuracies[feature, 1, lane], 1 - right)
    assert (accuracies[:, 0].diagonal() == 1).all()
    assert (accuracies[:, 0][~torch.eye(3, dtype=torch.bool)] < 0.75).all()
