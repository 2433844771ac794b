"""Work on a stack that does not fit into memory: it is done for half of the learning rates at a time."""

import gc
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from lratlas.notices import LOG

T = TypeVar("T")
# What PyTorch, its allocator for the CPU, its data loaders and torchrun, JAX, CUDA, C++, Linux and Slurm say.
_MESSAGES = re.compile(
    r"out.?of.?memory|memoryerror|not enough memory|can(?:'t|not) allocate memory|resource_?exhausted|bad_alloc"
    r"|alloc_failed|oom.?kill|killed by signal: killed|signal 9 \(sigkill\)",
    re.IGNORECASE,
)


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


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that memory did not suffice."""
    import torch  # a search for a command starts without it

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or says_out_of_memory(str(error))


def says_out_of_memory(text: str) -> bool:
    """Whether what a program printed says that memory did not suffice."""
    return _MESSAGES.search(text) is not None


def _in_parts(work: Callable[[slice], T], part: slice, join: Callable[[Sequence[T]], T]) -> T:
    size = part.stop - part.start
    try:
        return work(part)
    except RuntimeError as error:
        if size < 2 or not is_out_of_memory(error):
            raise
    import torch

    # Here and not above, for an exception that is being handled keeps the failed attempt's tensors.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = part.start + size // 2
    LOG.warning(
        "A stack of %d LRs needs more memory than there is: it is split in two and tried again"
        " (`training.stack` in the spec sets a smaller size from the start).",
        size,
    )
    return join([_in_parts(work, slice(*ends), join) for ends in ((part.start, middle), (middle, part.stop))])
