"""Which frequencies of images a model relies on: its accuracy on single Fourier bands (Figs. 6, 7, 9, 18, 25)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from lratlas.data.band_ranges import Band
from lratlas.data.bands import keep_band
from lratlas.training.evaluate import evaluate_stack
from lratlas.training.program import Program
from lratlas.training.sphere import Weights
from lratlas.training.state import Samples


def band_accuracies(
    program: Program, weights: Weights, buffers: Weights, samples: Samples, bands: Sequence[Band], *, kept: bool
) -> Tensor:
    """Accuracy on the samples' images with only one band, or with all but one, float64 [bands, seeds, lanes].

    The transformed images are filtered: where these are normalised, the data set's mean is in band 0 alone.

    Args:
        program: The stack's program.
        weights: Trained parameters, [seeds, lanes, *parameter].
        buffers: Buffers, likewise.
        samples: Images [data sets, n, C, H, W].
        bands: The bands.
        kept: True to keep each band, False to remove it.
    """
    return torch.stack(
        [
            evaluate_stack(
                program, weights, buffers, replace(samples, transform=partial(_shown, samples.transform, band, kept))
            ).accuracy
            for band in bands
        ]
    )


def _shown(transform: Callable[[Tensor], Tensor] | None, band: Band, kept: bool, images: Tensor) -> Tensor:
    return keep_band(transform(images) if transform else images, band.low, band.high, kept=kept)
