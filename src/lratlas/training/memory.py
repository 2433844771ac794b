"""Handle stacks that do not fit in memory: process half of the learning rates at a time."""

import gc
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from lratlas.devices import release_memory
from lratlas.notices import LOG

T = TypeVar("T")
# Messages of PyTorch, its CPU allocator, its data loaders and torchrun, JAX, CUDA, C++, Linux and Slurm. Compiled code
# with a C++ wrapper only names the call that failed to allocate a tensor.
_MESSAGES = re.compile(
    r"out.?of.?memory|memoryerror|not enough memory|can(?:'t|not) allocate memory|resource_?exhausted|bad_alloc"
    r"|alloc_failed|aoti_torch_empty_strided\w*\(.*api call failed|oom.?kill"
    r"|killed by signal: killed|signal 9 \(sigkill\)",
    re.IGNORECASE | re.DOTALL,
)


def in_parts(work: Callable[[slice], T], lanes: int, join: Callable[[Sequence[T]], T]) -> T:
    """Process all lanes of a stack at once or, if memory runs out, split them in halves recursively.

    A warning of the logger ``lratlas`` reports each split.

    Args:
        work: Called with the lanes to process; must leave nothing behind if it fails.
        lanes: Number of lanes of the stack.
        join: Joins the results of consecutive parts.

    Raises:
        RuntimeError: A single lane does not fit.
    """
    return _in_parts(work, slice(0, lanes), join)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error reports a lack of memory."""
    import torch  # imported late: a search for a command starts without it

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or says_out_of_memory(str(error))


def says_out_of_memory(text: str) -> bool:
    """Whether the output of a program reports a lack of memory."""
    return _MESSAGES.search(text) is not None


def free_memory() -> None:
    """Release the memory of a failed attempt."""
    gc.collect()
    release_memory()


def _in_parts(work: Callable[[slice], T], part: slice, join: Callable[[Sequence[T]], T]) -> T:
    size = part.stop - part.start
    try:
        return work(part)
    except RuntimeError as error:
        if size < 2 or not is_out_of_memory(error):
            raise
    free_memory()  # not above: during exception handling, the exception keeps the failed attempt's tensors alive
    middle = part.start + size // 2
    LOG.warning(
        "A stack of %d LRs ran out of memory: it is split in two and retried (set a smaller `training.stack` in"
        " the spec to avoid this).",
        size,
    )
    return join([_in_parts(work, slice(*ends), join) for ends in ((part.start, middle), (middle, part.stop))])
