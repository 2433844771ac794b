"""Random streams that are a function of a key, so redrawing them needs no stored state.

Every draw of a study comes from a counter-based generator (Philox) keyed by a seed, a purpose and a counter such as
the epoch. A run can therefore resume, or replay one of its epochs, without any generator state.
"""

import hashlib
import json
import random
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from lratlas import devices

if TYPE_CHECKING:
    from torch import Tensor


def stream(seed: int, purpose: str, counter: int = 0) -> np.random.Generator:
    """A generator for one purpose, independent of the generators for other seeds, purposes and counters.

    Args:
        seed: The seed of the repetition or of the data.
        purpose: The purpose of the draw, for example ``"order"``.
        counter: The index of the draw for that purpose, for example the epoch.
    """
    return np.random.Generator(np.random.Philox(key=_key(seed, purpose, counter)))


def torch_seed(seed: int, purpose: str) -> int:
    """A seed in [0, 2^63) for PyTorch's generators, derived from the same kind of key as `stream`."""
    return _key(seed, purpose, 0) % 2**63


def _key(seed: int, purpose: str, counter: int) -> int:
    digest = hashlib.sha256(f"{seed}/{purpose}/{counter}".encode()).digest()
    return int.from_bytes(digest[:16], "little")


def read_generators() -> tuple[Any, ...]:
    """The states of the global generators of PyTorch, NumPy and Python, for `set_generators`."""
    import torch  # late, since streams do not need PyTorch

    array = np.random.get_state()  # noqa: NPY002 - a user's code may draw from it
    return torch.get_rng_state(), devices.generator_states(), array, random.getstate()


def set_generators(states: tuple[Any, ...]) -> None:
    """Set the global generators to states from `read_generators`."""
    import torch

    cpu, accelerator, array, python = states
    torch.set_rng_state(cpu)
    devices.set_generator_states(accelerator)
    np.random.set_state(array)  # noqa: NPY002
    random.setstate(python)


def pack_generators() -> "dict[str, Tensor]":
    """The states of all global generators as tensors, which `unpack_generators` sets."""
    import torch

    cpu, accelerator, (kind, key, *array), (number, words, *python) = read_generators()
    host = json.dumps([[kind, key.tolist(), *array], [number, [*words], *python]]).encode()
    return {"cpu": cpu, "host": torch.frombuffer(bytearray(host), dtype=torch.uint8), **accelerator}


def unpack_generators(tensors: "Mapping[str, Tensor]") -> None:
    """Set the global generators to states from `pack_generators`; generators without a state stay unchanged."""
    cpu, accelerator, array, python = read_generators()
    if "host" in tensors:
        array, (number, words, *rest) = json.loads(bytes(tensors["host"].tolist()))
        python = (number, tuple(words), *rest)
    set_generators((tensors.get("cpu", cpu), {**accelerator, **tensors}, tuple(array), python))


def set_seed(seed: int) -> None:
    """Seed the global generators of PyTorch, NumPy and Python.

    Args:
        seed: In [0, 2^63).
    """
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - a user's code may draw from it
    torch.default_generator.manual_seed(seed)
    devices.seed_devices(seed)


@contextmanager
def preserve_generators() -> Generator[None]:
    """Restore the states of the global generators of PyTorch, NumPy and Python at the end of the block."""
    states = read_generators()
    try:
        yield
    finally:
        set_generators(states)


@contextmanager
def seed_generators(seed: int) -> Generator[None]:
    """Seed the global generators of PyTorch, NumPy and Python inside the block, and restore their states afterwards.

    Args:
        seed: In [0, 2^63).
    """
    with preserve_generators():
        set_seed(seed)
        yield


def generator_states() -> tuple[object, ...]:
    """The states of the global generators of PyTorch, NumPy and Python, to detect draws from them."""
    cpu, accelerator, array, python = read_generators()
    others = {name: state.numpy().tobytes() for name, state in accelerator.items()}
    return cpu.numpy().tobytes(), str(array), python, others
