"""The synthetic example: binary labels and two-dimensional features, each of which can separate the classes.

Source: the synthetic example of "Where Do Large Learning Rates Lead Us?" (arXiv 2410.22113), figure 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from math import isfinite

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lratlas.data.shapes import SHAPES, Flags, Shape, boundary_points, check_margin, informative_points
from lratlas.errors import TaskError

SHAPE, MARGIN = "tick", 0.1  # defaults


@dataclass(frozen=True, kw_only=True, eq=False)
class TickData:
    """Synthetic data; feature i occupies the input columns 2i and 2i + 1, labels are 0.0 or 1.0.

    Attributes:
        train: Inputs [n, 2 · features] and labels [n], float32.
        test: Inputs and labels of the test set, in the same form.
        singles: Inputs [features, n, 2 · features] and labels [features, n]; in set i, only feature i is informative.
    """

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    singles: tuple[Tensor, Tensor]


def ticks(
    *,
    seed: int,
    train: int = 512,
    test: int = 2000,
    features: int = 16,
    shape: str = SHAPE,
    utilities: float | Sequence[float] = 1.0,
    margin: float = MARGIN,
    label_noise: float | Sequence[float] = 0.0,
    single: int = 1000,
) -> TickData:
    """Generate the synthetic example: two-dimensional features that all predict the same binary label.

    A feature is informative for a sample if the class of its point is the label, and uninformative if the point is on a
    boundary curve, whatever the label. Every part of the data has a separate random stream, keyed by the seed and its
    purpose, so changing the size, utility or noise of one part does not change the others.

    Args:
        seed: Data seed, from 0 to 2⁶⁴ - 1; the same seed gives the same bytes.
        train: Number of training samples, even.
        test: Number of test samples, even.
        features: Number of two-dimensional features.
        shape: Name of the shape of every feature, one of ``SHAPES``.
        utilities: Probability that a feature is informative for a training or test sample; one number or
            one per feature.
        margin: Minimum Euclidean distance of informative points to every boundary curve.
        label_noise: Share of the training samples that, in one feature, form pairs of one sample of class 0 and one of
            class 1 with swapped points; one number, or one per feature. Pairs are drawn independently for each feature.
        single: Number of samples in each single-feature test set, even.

    Returns:
        Training set, test set and one test set per feature.

    Raises:
        TaskError: An argument is out of range, or the margin leaves a class empty.

    Example:
        >>> data = ticks(seed=1)
        >>> tuple(data.train[0].shape)
        (512, 32)
    """
    chosen = _shape(shape)
    check_margin(chosen, margin)
    if not 0 <= seed < 2**64:
        raise TaskError(f"seed must be an integer from 0 to 2**64 - 1, but it is {seed}.")
    if features < 1:
        raise TaskError(f"features must be at least 1, but it is {features}.")
    for name, count in (("train", train), ("test", test), ("single", single)):
        # An odd set cannot have equal classes, and chance level would not be exactly 50%.
        if count < 2 or count % 2:
            raise TaskError(f"{name} must be an even number of samples, at least 2, but it is {count}.")
    usefulness = _shares("utilities", utilities, features)
    noise = _shares("label_noise", label_noise, features)
    none = (0.0,) * features
    split = partial(_split, chosen, seed=seed, margin=margin)
    alone = [(*none[:i], 1.0, *none[i + 1 :]) for i in range(features)]
    singles = [split(single, purpose=f"single {i}", utilities=utility, noise=none) for i, utility in enumerate(alone)]
    return TickData(
        train=split(train, purpose="train", utilities=usefulness, noise=noise),
        test=split(test, purpose="test", utilities=usefulness, noise=none),
        singles=(torch.stack([x for x, _ in singles]), torch.stack([y for _, y in singles])),
    )


def dirichlet_weights(weight: Tensor, *, alpha: float, generator: torch.Generator) -> Tensor:
    """Redraw the singular values of a weight matrix; its singular vectors and its Frobenius norm do not change.

    With ``weight = U diag(s) Vᵀ`` the result is ``U diag(r) Vᵀ``, where ``r = ‖s‖ p / ‖p‖`` and ``p``
    follows the symmetric Dirichlet(``alpha``) distribution: a small ``alpha`` gives nearly low rank, a large
    one nearly equal singular values.

    Args:
        weight: A matrix, [rows, columns].
        alpha: Concentration of the symmetric Dirichlet distribution, above 0.
        generator: Source of randomness; the call advances it.

    Returns:
        A matrix of the same shape, type and device; the argument is not changed.

    Raises:
        TaskError: ``alpha`` is not a positive finite number, or ``weight`` is not a matrix of finite
            numbers.
    """
    if not (alpha > 0 and isfinite(alpha)):
        raise TaskError(f"alpha must be a finite number above 0, but it is {alpha}.")
    if weight.ndim != 2 or not weight.numel():
        raise TaskError(f"weight must be a matrix with at least one entry, but it has shape {tuple(weight.shape)}.")
    if not bool(weight.isfinite().all()):
        raise TaskError("weight must contain only finite numbers, but it contains NaN or infinity.")
    exact = weight.detach().to(torch.float64)
    left, values, right = torch.linalg.svd(exact, full_matrices=False)
    # NumPy's sampler also works for such small alpha that all gamma variates underflow to zero.
    key = torch.randint(2**63 - 1, (2,), generator=generator, device=generator.device).cpu().numpy()
    source = np.random.Generator(np.random.Philox(key=key.astype(np.uint64)))
    shares = torch.from_numpy(source.dirichlet(np.full(len(values), alpha))).to(values)
    redrawn = values.norm() * shares / shares.norm()
    return ((left * redrawn) @ right).to(weight.dtype)


def _split(
    shape: Shape,
    count: int,
    *,
    seed: int,
    purpose: str,
    margin: float,
    utilities: Sequence[float],
    noise: Sequence[float],
) -> tuple[Tensor, Tensor]:
    # Both classes have exactly count // 2 samples, so chance level is exactly 50%.
    one = np.arange(count) % 2 == 1
    _stream(seed, f"{purpose}: labels").shuffle(one)
    columns: list[NDArray[np.float32]] = []
    for feature, (utility, share) in enumerate(zip(utilities, noise, strict=True)):
        points = _feature(shape, one, utility, margin=margin, seed=seed, purpose=f"{purpose}: feature {feature}")
        swapped = _swap_ticks(one, share, generator=_stream(seed, f"{purpose}: noise {feature}"))
        columns.append(points[swapped])
    return torch.from_numpy(np.hstack(columns)), torch.from_numpy(one.astype(np.float32))


def _feature(
    shape: Shape, one: Flags, utility: float, *, margin: float, seed: int, purpose: str
) -> NDArray[np.float32]:
    points = boundary_points(shape, len(one), generator=_stream(seed, f"{purpose}: uninformative"))
    informative = _stream(seed, f"{purpose}: choice").random(len(one)) < utility
    if informative.any():
        source = _stream(seed, f"{purpose}: informative")
        drawn = informative_points(shape, one, margin=margin, generator=source)
        points[informative] = drawn[informative]
    return points


def _swap_ticks(one: Flags, share: float, *, generator: np.random.Generator) -> NDArray[np.intp]:
    pairs = round(share * len(one) / 2)
    zeros = generator.permutation(np.flatnonzero(~one))[:pairs]
    ones = generator.permutation(np.flatnonzero(one))[:pairs]
    order = np.arange(len(one))
    order[zeros], order[ones] = ones, zeros
    return order


def _stream(seed: int, purpose: str) -> np.random.Generator:
    word = int.from_bytes(blake2b(purpose.encode(), digest_size=8).digest(), "little")
    return np.random.Generator(np.random.Philox(key=np.array([seed, word], dtype=np.uint64)))


def _shape(name: str) -> Shape:
    if name not in SHAPES:
        raise TaskError(f"shape must be one of {', '.join(SHAPES)}, but it is '{name}'.")
    return SHAPES[name]


def _shares(name: str, value: float | Sequence[float], features: int) -> tuple[float, ...]:
    shares = tuple(value) if isinstance(value, Sequence) else (value,) * features
    if len(shares) != features:
        raise TaskError(f"{name} must be one number or one per feature ({features}), but it has {len(shares)}.")
    for share in shares:
        if not 0 <= share <= 1:
            raise TaskError(f"{name} must be in [0, 1], but it contains {share}.")
    return shares
