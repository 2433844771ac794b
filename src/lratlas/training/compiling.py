"""Functions under `torch.compile` with a fallback: if compilation fails, they run eagerly."""

import logging
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lratlas.data.parts import copy_tensors
from lratlas.devices import widened
from lratlas.errors import first_line
from lratlas.notices import LOG
from lratlas.rng import preserve_generators
from lratlas.training.memory import is_out_of_memory

_RELATIVE = 0.02  # the order of float32 sums changes results by 1e-3 at most, even far from a minimum
_OF_LARGEST = 1e-4  # of the largest compared number: gradients that should be zero are rounding errors
_SAFE = 1e6  # smaller numbers do not overflow, whatever the order of sums

Function = Callable[..., Any]


def why_not_compiled(device: torch.device) -> str:
    """Why `torch.compile` does not work for a device; empty if it does.

    For a CPU, this looks for a C++ compiler. For other devices, it compiles and runs a small function.
    """
    if device.type == "cpu":
        return "" if any(shutil.which(name) for name in ("g++", "clang++", "c++")) else "there is no C++ compiler here"
    try:
        with _quiet():
            total = compile_function(_double_and_add, device, whole=True)(torch.ones(8, device=device))
    except Exception as error:
        return f"a trial compilation for {device} failed with {type(error).__name__}: {first_line(error).rstrip('.')}"
    return "" if float(total) == 16 else f"a trial compilation for {device} computed other numbers"


def _double_and_add(x: Tensor) -> Tensor:
    return (2 * x).sum()


def compile_function(function: Function, device: torch.device, *, whole: bool = False) -> Function:
    """The function under `torch.compile`, without a fallback.

    Args:
        function: The function.
        device: The device of its tensors.
        whole: Whether to raise an error rather than run a part of the function eagerly.
    """
    from torch._dynamo import config as dynamo  # slow import, takes seconds

    # Each stack size compiles separately; beyond the limit PyTorch would silently run eagerly.
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = 4096
    return torch.compile(function, fullgraph=whole, dynamic=False, options=compiler_options(device))


def compiler_options(device: torch.device) -> dict[str, Any]:
    """Options of PyTorch's compiler for a device."""
    # On a GPU, the C++ wrapper needs the CUDA toolkit, which PyTorch's packages do not contain.
    if device.type != "cpu":
        return {}
    # The C++ wrapper halves a call's cost outside the kernels; contraction lets products and sums fuse.
    return {"cpp_wrapper": True, "cpp.enable_floating_point_contract_flag": "fast"}


@dataclass
class Compilation:
    """Whether the functions of a program still run compiled; one failure switches all of them to eager mode."""

    failed: bool = False

    def fail(self, reason: str) -> None:
        """Continue eagerly; only the first reason is reported."""
        if not self.failed:
            LOG.warning("Training runs uncompiled, which may be several times slower: %s.", reason.rstrip("."))
        self.failed = True


class Guarded:
    """A compiled function with the eager function as its fallback.

    The first call runs both and compares their results. If the compiled function raises an error that the eager one
    does not, or returns other numbers, a warning of the logger ``lratlas`` names the reason, and all functions of the
    program stay eager. An error that both raise is the user's and propagates, and so does a lack of memory.

    Args:
        fast: The compiled function.
        slow: The same function in eager mode.
        compared: Maps the result to the tensors to compare; None to compare nothing, if random layers draw other
            numbers when compiled.
        compilation: Shared by all functions of a program.
    """

    def __init__(
        self,
        fast: Function,
        slow: Function,
        compared: Callable[[Any], list[Tensor]] | None,
        compilation: Compilation | None = None,
    ) -> None:
        self._fast, self._slow, self._compared = fast, slow, compared
        self._compilation = compilation or Compilation()
        self._tested = False

    def __call__(self, *args: Any) -> Any:
        """Call the function with these arguments."""
        if self._compilation.failed:
            return self._slow(*args)
        if self._tested:
            try:
                return self._fast(*args)
            except Exception as error:  # another stack size triggers another compilation, which may fail
                return self._retry(error, args)
        return self._first(args)

    def _first(self, args: tuple[Any, ...]) -> Any:
        expected = self._eager_result(args) if self._compared else None
        generator = torch.get_rng_state()
        try:
            with _quiet():
                result = self._fast(*args)
        except Exception as error:
            torch.set_rng_state(generator)
            return self._rescue(error, args)
        self._tested = True
        if self._compared and expected is not None:
            other = differing(self._compared(result), self._compared(expected))
            if other:
                self._compilation.fail(f"the compiled program gives different numbers from the model's code ({other})")
                return expected
        return result

    def _retry(self, error: Exception, args: tuple[Any, ...]) -> Any:
        """Retry with the guards that `lratlas.training.trainer` skips; they may trigger a missing recompilation."""
        if is_out_of_memory(error):
            raise error
        try:
            with torch.compiler.set_stance("default"), _quiet():
                return self._fast(*args)
        except Exception as again:
            return self._rescue(again, args)

    def _rescue(self, error: Exception, args: tuple[Any, ...]) -> Any:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise error
        result = self._slow(*args)  # raises the user's own errors
        self._compilation.fail(f"compilation failed with {type(error).__name__}: {first_line(error)}")
        return result

    def _eager_result(self, args: tuple[Any, ...]) -> Any:
        """The eager result, on copies, since a model may change its inputs in place; None if memory is short."""
        try:
            with preserve_generators():
                return self._slow(*copy_tensors(args))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None


def differing(found: list[Tensor], expected: list[Tensor]) -> str:
    """Describe how two lists of tensors differ by more than rounding; empty if they do not."""
    pairs = [(widened(a.detach()), widened(b.detach())) for a, b in zip(found, expected, strict=True) if b.numel()]
    largest = max((float(b[b.isfinite()].abs().max()) for _, b in pairs if b.isfinite().any()), default=0.0)
    for a, b in pairs:
        if (b.isfinite() & ~a.isfinite() & (b.abs() < _SAFE)).any():
            return "a number that is not finite"
        finite = a.isfinite() & b.isfinite()
        one, other = a[finite], b[finite]
        off = (one - other).abs() - _RELATIVE * other.abs() - _OF_LARGEST * largest
        if len(off) and float(off.max()) > 0:
            worst = int(off.argmax())
            return f"{float(one[worst]):.6g} instead of {float(other[worst]):.6g}"
    return ""


@contextmanager
def _quiet() -> Generator[None]:
    """Silence the long failure logs of PyTorch's compiler; one notice has the reason."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
