"""Random streams that are a function of a key, so that nothing has to be stored to draw them again.

Every draw of a study comes from a counter-based generator (Philox) keyed by a seed, a purpose and a counter such as
the epoch. A run can therefore be resumed, or one of its epochs replayed, without any generator state.
"""

import hashlib

import numpy as np


def stream(seed: int, purpose: str, counter: int = 0) -> np.random.Generator:
    """A generator for one purpose, independent of those for other seeds, purposes and counters.

    Args:
        seed: The seed of the repetition or of the data.
        purpose: What is drawn, for example ``"order"``.
        counter: Which draw of that purpose, for example the epoch.
    """
    return np.random.Generator(np.random.Philox(key=_key(seed, purpose, counter)))


def torch_seed(seed: int, purpose: str) -> int:
    """A seed in [0, 2^63) for PyTorch's own generators, derived from the same kind of key as `stream`."""
    return _key(seed, purpose, 0) % 2**63


def _key(seed: int, purpose: str, counter: int) -> int:
    digest = hashlib.sha256(f"{seed}/{purpose}/{counter}".encode()).digest()
    return int.from_bytes(digest[:16], "little")
