"""Functions under `torch.compile` that never take a training with them: where it fails, they run as they are."""

import logging
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lratlas.errors import first_line
from lratlas.training.memory import is_out_of_memory

_LOG = logging.getLogger("lratlas")
_RELATIVE = 0.02  # float32 sums in another order differ by a thousandth at most, even far from a minimum
_OF_LARGEST = 1e-4
_SAFE = 1e6  # numbers below this do not overflow in another order of sums

Function = Callable[..., Any]


def can_compile() -> bool:
    """Whether a C++ compiler is there for `torch.compile` to use on a CPU."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def compiled(function: Function) -> Function:
    """The function under `torch.compile`, without any safety net."""
    from torch._dynamo import config as dynamo  # takes seconds to import

    # The C++ wrapper halves what a call costs outside the kernels; contraction lets products and sums fuse.
    # Every size of stack is compiled for itself; beyond the limit PyTorch would run eagerly without a word.
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = 4096
    options: dict[str, Any] = {"cpp_wrapper": True, "cpp.enable_floating_point_contract_flag": "fast"}
    return torch.compile(function, dynamic=False, options=options)


class Guarded:
    """A compiled function beside the eager one: the eager one takes over, for good, where compilation fails.

    In its first call both are run and compared. Where the compiled function raises an error that the eager one does
    not, or gives other numbers, a warning of the logger ``lratlas`` names the reason, and training continues eagerly.
    An error that both raise is the user's own and is passed on, and so is a lack of memory.

    Args:
        fast: The compiled function.
        slow: The same function, eager.
        telling: From the result to the tensors that are compared; None to compare nothing, where random layers draw
            other numbers under compilation.
    """

    def __init__(self, fast: Function, slow: Function, telling: Callable[[Any], list[Tensor]] | None) -> None:
        self._fast, self._slow, self._telling = fast, slow, telling
        self._tested = self._failed = False

    def __call__(self, *args: Any) -> Any:
        """What the function returns for these arguments."""
        if self._failed:
            return self._slow(*args)
        if self._tested:
            try:
                return self._fast(*args)
            except Exception as error:  # a stack of another size is compiled again, which may fail
                return self._rescue(error, args)
        expected = self._expected(args) if self._telling else None
        result = self._attempt(args)
        other = ""
        if not self._failed and self._telling and expected is not None:
            other = differing(self._telling(result), self._telling(expected))
        if other:
            self._fail(f"the compiled program gives other numbers than the model's own code ({other})")
            return expected
        self._tested = True
        return result

    def _attempt(self, args: tuple[Any, ...]) -> Any:
        generator = torch.get_rng_state()
        try:
            with _quiet():
                return self._fast(*args)
        except Exception as error:
            torch.set_rng_state(generator)
            return self._rescue(error, args)

    def _rescue(self, error: Exception, args: tuple[Any, ...]) -> Any:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise error
        result = self._slow(*args)  # raises here what is the user's own fault
        self._fail(f"{type(error).__name__}: {first_line(error)}")
        return result

    def _expected(self, args: tuple[Any, ...]) -> Any:
        """The eager result, on copies, since a model may change its inputs in place; None if memory is short."""
        generator = torch.get_rng_state()
        try:
            return self._slow(*tree_map(_copied, args))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None
        finally:
            torch.set_rng_state(generator)

    def _fail(self, reason: str) -> None:
        self._failed = True
        _LOG.warning("Compilation failed, so training runs uncompiled, which may be several times slower: %s", reason)


def differing(found: list[Tensor], expected: list[Tensor]) -> str:
    """How two lists of tensors differ by more than rounding, in words; empty if they do not."""
    for a, b in zip(found, expected, strict=True):
        if (b.isfinite() & ~a.isfinite() & (b.abs() < _SAFE)).any():
            return "a number that is not finite"
        finite = a.isfinite() & b.isfinite()
        if not finite.any():
            continue
        one, other = a[finite].double(), b[finite].double()
        off = (one - other).abs() - _RELATIVE * other.abs() - _OF_LARGEST * other.abs().max()
        if (worst := int(off.argmax())) >= 0 and float(off[worst]) > 0:
            return f"{float(one[worst]):.6g} instead of {float(other[worst]):.6g}"
    return ""


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


@contextmanager
def _quiet() -> Generator[None]:
    """PyTorch's compiler logs every failure at length; the one notice says what matters."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
