"""What is global in a process, and belongs to one training while that training runs."""

import os
import random
import sys
import threading
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO, cast

import numpy as np
import torch

_STACK = 1 << 26  # bytes; compilers and deep models recurse further than a thread's default bears


@dataclass(frozen=True, kw_only=True)
class World:
    """The global state of a process: generators, arguments, folders, modules of a script, and PyTorch's settings."""

    generators: tuple[Any, ...]
    argv: list[str]
    folder: str
    path: list[str]
    environment: dict[str, str]
    modules: dict[str, ModuleType]
    settings: tuple[Any, ...]


def world(roots: Collection[Path] = ()) -> World:
    """The present state.

    Args:
        roots: Folders whose modules belong to a training, since it imported them and may have changed them.
    """
    return World(
        generators=_generators(),
        argv=list(sys.argv),
        folder=os.getcwd(),  # noqa: PTH109 - it is put back as it was
        path=list(sys.path),
        environment=dict(os.environ),
        modules=_modules(roots),
        settings=(
            torch.get_default_dtype(),
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_num_threads(),
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
        ),
    )


def enter(state: World, roots: Collection[Path] = ()) -> None:
    """Make a state the present one."""
    _set_generators(state.generators)
    sys.argv, sys.path = list(state.argv), list(state.path)
    os.chdir(state.folder)
    if dict(os.environ) != state.environment:
        os.environ.clear()
        os.environ.update(state.environment)
    for name in _modules(roots).keys() - state.modules.keys():
        del sys.modules[name]
    sys.modules.update(state.modules)
    dtype, precision, deterministic, threads, benchmark, cudnn = state.settings
    torch.set_default_dtype(dtype)
    torch.set_float32_matmul_precision(precision)
    if torch.are_deterministic_algorithms_enabled() != deterministic:
        torch.use_deterministic_algorithms(deterministic)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, cudnn


def _modules(roots: Collection[Path]) -> dict[str, ModuleType]:
    """The modules that lie in some folders, and `__main__`."""
    found = {"__main__": sys.modules["__main__"]}
    if not roots:
        return found
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and any(root in Path(file).parents for root in roots) and "site-packages" not in file:
            found[name] = module
    return found


def _generators() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return torch.get_rng_state(), cuda, np.random.get_state(), random.getstate()  # noqa: NPY002 - the user's code draws


def _set_generators(states: tuple[Any, ...]) -> None:
    cpu, cuda, array, python = states
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)
    np.random.set_state(array)  # noqa: NPY002
    random.setstate(python)


class Leave(BaseException):
    """Ends a training from within its loop; no ``except Exception`` catches it."""


class Suspendable:
    """A function that runs in a thread of its own, and only while `resume` waits for it.

    Attributes:
        over: Whether it has ended.
        returned: What it returned.
        error: What it raised; None where it returned, or was made to leave.
    """

    def __init__(self, body: Callable[[], object]) -> None:
        self.over = False
        self.returned: object = None
        self.error: BaseException | None = None
        self._body, self._leaving = body, False
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        before = threading.stack_size(_STACK)
        try:
            self.thread = threading.Thread(target=self._main, daemon=True, name="lratlas training")
            self.thread.start()
        finally:
            threading.stack_size(before)

    def resume(self) -> None:
        """Let it run until it suspends itself or ends."""
        self._go.release()
        self._back.acquire()

    def suspend(self) -> None:
        """In its own thread: give back control, until it is resumed.

        Raises:
            Leave: It was told to end.
        """
        self._back.release()
        self._go.acquire()
        if self._leaving:
            raise Leave

    def leave(self) -> None:
        """Make it end; code that will not end waits for ever, and is left behind with the process."""
        if not self.over:
            self._leaving = True
            self.resume()

    def _main(self) -> None:
        self._go.acquire()
        try:
            if not self._leaving:
                self.returned = self._body()
        except Leave:
            pass
        except SystemExit as error:
            self.error = error if error.code not in {None, 0} else None
        except BaseException as error:
            self.error = error
        self._body = lambda: None  # what it held is free now
        self.over = True
        self._back.release()


class Outputs:
    """Stands for ``sys.stdout`` and ``sys.stderr`` while trainings run: what each prints goes into a file of its own.

    Handlers of loggers that hold this stream therefore write for whichever training runs.

    Attributes:
        target: The file of the training that runs; None for what is usual.
    """

    encoding = "utf-8"

    def __init__(self, usual: TextIO) -> None:
        self.target: TextIO | None = None
        self._usual = usual
        self._recorded: list[str] | None = None

    def write(self, text: str) -> int:
        """Write for the training that runs."""
        if self._recorded is not None:
            self._recorded.append(text)
        return (self.target or self._usual).write(text)

    def flush(self) -> None:
        """Nothing is held back."""
        (self.target or self._usual).flush()

    def isatty(self) -> bool:
        """A file is no terminal."""
        return False

    @contextmanager
    def recorded(self) -> Generator[Callable[[], str]]:
        """What is written meanwhile, as a function that returns all of it so far."""
        before, self._recorded = self._recorded, list[str]()
        written = self._recorded
        try:
            yield lambda: "".join(written)
        finally:
            self._recorded = before

    @contextmanager
    def installed(self) -> Generator[None]:
        """It takes the place of both streams meanwhile."""
        streams = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = cast("TextIO", self)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = streams
