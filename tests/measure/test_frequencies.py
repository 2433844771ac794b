"""Accuracies on Fourier bands against images filtered with NumPy, and models whose frequencies are known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lratlas.data.band_ranges import Band
from lratlas.measure.bands import band_accuracies
from lratlas.models.mlp import MLP
from lratlas.training.objective import LOSSES
from lratlas.training.program import Strategy, build
from lratlas.training.rules import sgd
from training.helpers import point_of, samples_of

BANDS = [Band(0, 0), Band(1, 2), Band(3, 5), Band(6, 7)]
SIZE = (6, 8)


def data(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 2, *SIZE, generator=generator, dtype=torch.float64)
    return images, torch.randint(3, (count,), generator=generator)


def halved(x: Tensor) -> Tensor:
    return (x + 1) / 2


def filtered(images: Tensor, band: Band, *, kept: bool) -> Tensor:
    """Each frequency looked at by itself, the signed one nearest to zero."""
    spectrum: NDArray[Any] = np.fft.fft2(images.numpy())
    for row, k in enumerate(np.fft.fftfreq(SIZE[0], 1 / SIZE[0])):
        for column, m in enumerate(np.fft.fftfreq(SIZE[1], 1 / SIZE[1])):
            if (band.low <= abs(k) + abs(m) <= band.high) != kept:
                spectrum[..., row, column] = 0
    return torch.from_numpy(np.fft.ifft2(spectrum).real)


@pytest.mark.parametrize("strategy", ["stack", "single"])
@pytest.mark.parametrize("kept", [True, False])
def test_accuracies_are_those_of_the_models_on_images_filtered_by_hand(kept: bool, strategy: Strategy) -> None:
    images, labels = data(70)
    models = list[nn.Module]()
    for seed in range(1 if strategy == "single" else 2):
        torch.manual_seed(seed)
        models.append(MLP(96, (8,), 3).double())
    point = point_of(models)
    program = build(models[0], LOSSES["cross_entropy"], sgd(), compiled=False, strategy=strategy)
    # Images are filtered as the model sees them, not as they are stored.
    kept_images = replace(samples_of(2 * images - 1, labels, point), transform=halved)
    found = band_accuracies(program, point.weights, point.buffers, kept_images, BANDS, kept=kept)
    assert found.shape == (len(BANDS), 1, len(models))
    assert found.dtype == torch.float64
    expected = torch.zeros_like(found)
    for index, band in enumerate(BANDS):
        shown = filtered(images, band, kept=kept)
        for at, model in enumerate(models):
            with torch.no_grad():
                expected[index, 0, at] = (model(shown).argmax(1) == labels).double().mean()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert len(expected.unique()) > 1


class Mean(nn.Module):
    """Says whether an image's mean is above zero, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([-1.0, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None] * self.scale


def test_a_model_that_looks_at_the_mean_is_right_on_band_0_alone() -> None:
    images, _ = data(80)
    above = images.mean((1, 2, 3)) > 0
    point = point_of([Mean().double()])
    samples = samples_of(images, above.long(), point, classes=2)
    program = build(Mean(), LOSSES["cross_entropy"], sgd(), compiled=False)

    def accuracies(*, kept: bool) -> Tensor:
        return band_accuracies(program, point.weights, {}, samples, BANDS, kept=kept)[:, 0, 0]

    assert float(accuracies(kept=True)[0]) == 1
    # Without the mean its outputs are rounding errors: it is right about as often as a coin.
    assert ((accuracies(kept=True)[1:] - 0.5).abs() < 0.25).all()
    assert abs(float(accuracies(kept=False)[0]) - 0.5) < 0.25
    assert (accuracies(kept=False)[1:] == 1).all()
