"""Tensors as one safetensors file that is sealed with a checksum."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from lratlas.study.store import checksum

if TYPE_CHECKING:
    from torch import Tensor


def sealed_weights(tensors: "Mapping[str, Tensor]") -> bytes:
    """The file of tensors.

    Args:
        tensors: Tensors of any shapes and devices by name; they may share memory.

    Raises:
        ValueError: A name is that of the checksum.
    """
    from safetensors.torch import save

    # Copies, since safetensors refuses tensors that share memory.
    values = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    return checksum.seal(save(values, metadata={checksum.KEY: checksum.PLACEHOLDER}))


def opened_weights(data: bytes) -> "dict[str, Tensor]":
    """The tensors of a file that `sealed_weights` wrote, on the CPU.

    Raises:
        ValueError: It was cut short or altered, or is another file.
    """
    from safetensors.torch import load

    if not checksum.is_intact(data):
        raise ValueError(checksum.ALTERED)
    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError("is not a safetensors file") from error
