"""Work on a stack that does not fit into memory: it is done for half of the learning rates at a time."""

import gc
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")
_LOG = logging.getLogger("lratlas")
# What PyTorch's allocator for the CPU says; that for GPUs has an exception of its own.
_CPU_MESSAGES = ("can't allocate memory", "not enough memory")


def in_parts(work: Callable[[slice], T], lanes: int, join: Callable[[Sequence[T]], T]) -> T:
    """Do work for all lanes of a stack at once or, where memory does not suffice, for halves of them, and so on.

    A warning of the logger ``lratlas`` says so.

    Args:
        work: Called with the lanes to work on; must leave nothing behind if it fails.
        lanes: Number of lanes of the stack.
        join: Puts the results of consecutive parts together.

    Raises:
        RuntimeError: A single lane does not fit.
    """
    return _in_parts(work, slice(0, lanes), join)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of PyTorch says that memory did not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _CPU_MESSAGES)


def _in_parts(work: Callable[[slice], T], part: slice, join: Callable[[Sequence[T]], T]) -> T:
    size = part.stop - part.start
    try:
        return work(part)
    except RuntimeError as error:
        if size < 2 or not is_out_of_memory(error):
            raise
    # Here and not above, for an exception that is being handled keeps the failed attempt's tensors.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = part.start + size // 2
    _LOG.warning(
        "A stack of %d LRs needs more memory than there is: it is split in two and tried again"
        " (`training.stack` in the spec sets a smaller size from the start).",
        size,
    )
    return join([_in_parts(work, slice(*ends), join) for ends in ((part.start, middle), (middle, part.stop))])
