"""Which features a model has learned: its accuracy on test sets in which only one feature tells the classes apart."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lratlas.training.evaluate import evaluate_stack
from lratlas.training.program import Program
from lratlas.training.sphere import Weights
from lratlas.training.state import Samples


def single_feature_accuracies(program: Program, weights: Weights, buffers: Weights, sets: Sequence[Samples]) -> Tensor:
    """Accuracy on each single-feature test set, float64 [features, seeds, lanes] (Fig. 5).

    Args:
        program: The stack's program.
        weights: Trained parameters, [seeds, lanes, *parameter].
        buffers: Buffers, likewise.
        sets: One test set per feature.
    """
    return torch.stack([evaluate_stack(program, weights, buffers, samples).accuracy for samples in sets])
