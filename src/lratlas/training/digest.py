"""Hashes of tensors: byte for byte, or from a few digits of their sums, which are equal on every machine."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

SHIFT = 0.6234
"""Offset of the rounding limits, so that no round number is close to one."""
_SMALL = 0.01  # relative to a group's largest tensor: smaller ones get fewer digits
_FOLD = 1024


@dataclass
class Summary:
    """A few digits of many numbers: for each tensor its size, its mean and sums with fixed weights.

    Attributes:
        digits: Number of digits. Tensors are compared with the largest of their group, so pure rounding errors, such as
            the gradient of a bias before a norm layer, become 0.
        whole: Whether a group is summarized as one tensor, for large rounding errors.
        words: The words to hash.
    """

    digits: int
    whole: bool = False
    words: list[str] = field(default_factory=list[str])

    def add(self, tensors: Iterable[Tensor], least: float = 0.0) -> float:
        """Add a group of tensors of one kind, such as the gradients of all parameters.

        Args:
            tensors: The group.
            least: Usual size of such numbers; if all tensors are far smaller, they get fewer digits.

        Returns:
            The size of the largest tensor.
        """
        given = [tensor.detach().double() for tensor in tensors]
        self.words.append(" ".join(str(tuple(tensor.shape)) for tensor in given))
        if self.whole and given:
            given = [torch.cat([tensor.flatten() for tensor in given])]
        found = [_sums(tensor.flatten()) for tensor in given]
        largest = max((size for size, _, _ in found), default=0.0)
        for size, sums, missing in found:
            unit = max(size, _SMALL * max(largest, least))
            numbers = (math.log10(unit), size / unit, *(value / unit for value in sums)) if unit else ()
            self.words.append(f"{missing} {[math.floor(value * 10**self.digits + SHIFT) for value in numbers]}")
        return largest


def _sums(values: Tensor) -> tuple[float, list[float], int]:
    """Root mean square of the finite numbers, their mean and two other sums, and how many numbers are not finite."""
    missing, top = 0, float(values.abs().max()) if len(values) else 0.0
    if not math.isfinite(top):
        finite = values.isfinite()
        missing, values = int((~finite).sum()), torch.where(finite, values, 0)
        top = float(values.abs().max())
    if top < 1e-300:
        return 0.0, [0.0, 0.0, 0.0], missing
    values = values / top  # so that squares do not overflow
    size = math.sqrt(float(values @ values) / len(values))
    lines = -(-len(values) // _FOLD)
    width = min(_FOLD, len(values))
    folded = nn.functional.pad(values, (0, lines * width - len(values))).reshape(lines, width)
    sums = ((folded @ _waves(width, 1.0).T) * _waves(lines, 0.0).T).sum(0) / len(values)
    return top * size, [top * float(value) for value in sums], missing


def _waves(count: int, start: float) -> Tensor:
    angles = torch.arange(count, dtype=torch.float64)
    return torch.stack([torch.ones_like(angles), torch.cos(angles + start), torch.cos(angles.square() * 0.01)])


def digest(words: Iterable[str]) -> str:
    """The hash of words, as 16 hexadecimal digits."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """The byte-for-byte hash of tensors with their names, dtypes and shapes, as 16 hexadecimal digits."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(f"{name} {tensor.dtype}{tuple(tensor.shape)}".encode())
        found.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return found.hexdigest()[:16]


def words_of(value: Tensor) -> list[str]:
    """The words to hash for a weight: a few digits if it was drawn as a floating-point number."""
    if not value.is_floating_point():
        return [digest_of({"": value})]
    summary = Summary(digits=3)  # enough for float32 draws
    summary.add([value])
    return summary.words
