"""Global state of the process that belongs to one training while that training runs."""

import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import distributed

from lratlas.errors import SearchError
from lratlas.rng import read_generators, set_generators

ENVIRONMENT = {"WANDB_MODE": "disabled"}
"""Set for trainings of a search unless already set: all would share one run of Weights & Biases and its config."""
_ONE = threading.Lock()
_SHARED = {
    "accelerate.state": tuple(f"{each}State._shared_state" for each in ("Partial", "Accelerator", "Gradient")),
    "hydra.core.singleton": ("Singleton._instances",),
}
"""Dictionaries of packages, by module, that each training needs separately: they contain the position in a loop."""
_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
)
_JOBS = ("GlobalHydra", "HydraConfig", "JobRuntime")  # separate singletons of Hydra; others are shared


@dataclass(frozen=True, kw_only=True)
class World:
    """Global state: generators, arguments, folders, modules of a script, loggers, PyTorch's settings.

    Attributes:
        generators: States of the random generators of PyTorch, NumPy and Python.
        argv: Command-line arguments.
        folder: Current folder; None if it was deleted.
        path: Module search path.
        environment: Environment variables.
        modules: Modules of a script, by name.
        settings: PyTorch's settings.
        precision: PyTorch's settings of precision.
        loggers: By name, the loggers that no installed package created, with their settings; the root's name is empty.
        filters: Filters of warnings.
        collecting: Whether garbage collection is enabled.
        shared: Contents of the dictionaries of packages.
        starting: Start method of processes; None if it is not set.
    """

    generators: tuple[Any, ...]
    argv: list[str]
    folder: str | None
    path: list[str]
    environment: dict[str, str]
    modules: dict[str, ModuleType]
    settings: tuple[Any, ...]
    precision: tuple[Any, ...]
    loggers: dict[str, tuple[Any, ...]]
    filters: tuple[Any, ...]
    collecting: bool
    shared: dict[str, dict[Any, Any]]
    starting: str | None


def world(roots: Collection[Path] = ()) -> World:
    """Capture the current state.

    Args:
        roots: Folders whose modules belong to a training, because it imported them and may have changed them.
    """
    folder = None
    with suppress(FileNotFoundError):  # a temporary folder that was deleted
        folder = os.getcwd()  # noqa: PTH109 - it is restored as it was
    modules = _modules(roots)
    return World(
        generators=read_generators(),
        argv=list(sys.argv),
        folder=folder,
        path=list(sys.path),
        environment=dict(os.environ),
        modules=modules,
        settings=_settings(),
        precision=_precision(),
        loggers={name: _state(each) for name, each in _loggers(modules).items()},
        filters=(warnings.filters, list(warnings.filters), warnings.showwarning),
        collecting=gc.isenabled(),
        shared={name: _training_content(each) for name, each in _shared_dictionaries().items()},
        starting=multiprocessing.get_start_method(allow_none=True),
    )


def enter(state: World, roots: Collection[Path] = ()) -> None:
    """Make a captured state the current one."""
    set_generators(state.generators)
    sys.argv, sys.path = list(state.argv), list(state.path)
    if state.folder is not None:
        with suppress(OSError):  # the folder was deleted
            os.chdir(state.folder)
    if dict(os.environ) != state.environment:
        os.environ.clear()
        os.environ.update(state.environment)
    modules = _modules(roots)
    _set_loggers(state.loggers, modules)
    for name in modules.keys() - state.modules.keys():
        del sys.modules[name]
    sys.modules.update(state.modules)
    _set_settings(state.settings)
    _set_precision(state.precision)
    _set_filters(state.filters)
    (gc.enable if state.collecting else gc.disable)()
    multiprocessing.set_start_method(state.starting, force=True)
    for name, each in _shared_dictionaries().items():
        for key in _training_content(each):
            del each[key]  # in place: objects refer to it in their attributes
        each.update(_training_content(state.shared.get(name, {})))


@contextmanager
def several_trainings() -> Generator[None]:
    """In the block, each training can make calls that Python limits to the main thread, or PyTorch to one per process.

    Raises:
        SearchError: Such a block is active, in this thread or another.
    """
    if not _ONE.acquire(blocking=False):
        raise SearchError(
            "Another search of a function or script runs in this process: wait until it ends, or run each"
            " search in a separate process."
        )
    try:
        with _ignore_signals(), _share_group():
            yield
    finally:
        _ONE.release()


@contextmanager
def _ignore_signals() -> Generator[None]:
    """Ignore signal handlers that a thread installs in the block.

    An alarm without a handler would end the process: for alarms, the thread gets Python's error.
    """
    plain = signal.signal

    def install(number: int, handler: Any) -> Any:
        if threading.current_thread() is threading.main_thread() or number == getattr(signal, "SIGALRM", None):
            return plain(number, handler)
        return signal.getsignal(number)

    signal.signal = install
    try:
        yield
    finally:
        signal.signal = plain


@contextmanager
def _share_group() -> Generator[None]:
    """In the block, a process group of one process is created once and shared by all trainings."""
    if not distributed.is_available():
        yield
        return
    initialized = distributed.is_initialized()
    make, destroy = distributed.init_process_group, distributed.destroy_process_group

    def join(*args: Any, **kwargs: Any) -> None:
        if not distributed.is_initialized() or distributed.get_world_size() > 1:
            make(*args, **kwargs)

    def leave(group: Any = None) -> None:
        if group not in {None, distributed.group.WORLD}:
            destroy(group)

    def install(make: Any, destroy: Any) -> None:
        modules: list[Any] = [distributed, distributed.distributed_c10d]
        for module in modules:
            module.init_process_group, module.destroy_process_group = make, destroy

    install(join, leave)
    try:
        yield
    finally:
        install(make, destroy)
        if distributed.is_initialized() and not initialized:
            destroy()


def _modules(roots: Collection[Path]) -> dict[str, ModuleType]:
    """Modules in the given folders, and `__main__`."""
    found = {"__main__": sys.modules["__main__"]}
    folders = tuple(f"{str(root).rstrip(os.sep)}{os.sep}" for root in roots)
    if not folders:
        return found
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.startswith(folders) and not is_installed(file):
            found[name] = module
    return found


def _shared_dictionaries() -> dict[str, dict[Any, Any]]:
    """Dictionaries of the imported packages, by name."""
    modules = ((sys.modules[name], names) for name, names in _SHARED.items() if name in sys.modules)
    found: dict[str, Any] = {}
    for module, names in modules:
        for name in names:
            with suppress(AttributeError):  # other versions have other names
                found[name] = attrgetter(name)(module)
    return found


def _training_content(shared: dict[Any, Any]) -> dict[Any, Any]:
    """Content of a dictionary for a training; lists and dictionaries in it may be changed in place."""
    own = {key: each for key, each in shared.items() if getattr(key, "__name__", _JOBS[0]) in _JOBS}
    return {key: each.copy() if type(each) in {list, dict} else each for key, each in own.items()}


def is_installed(file: str) -> bool:
    """Whether a file belongs to an installed package."""
    return "site-packages" in file or "dist-packages" in file


def _settings() -> tuple[Any, ...]:
    own = torch.backends.cudnn
    return *(read() for read, _ in _SETTINGS), (own.enabled, own.benchmark, own.deterministic)


def _set_settings(settings: tuple[Any, ...]) -> None:
    *values, cudnn = settings
    for (read, write), value in zip(_SETTINGS, values, strict=True):
        if read() != value:
            write(value)
    own = torch.backends.cudnn
    own.enabled, own.benchmark, own.deterministic = cudnn


def _precision() -> tuple[Any, ...]:
    """Precision of matrix products, from PyTorch's older setting and the newer ones per backend."""
    older = None
    with suppress(RuntimeError):  # PyTorch refuses to read it once a newer one was set
        older = torch.get_float32_matmul_precision()
    return older, *(each.fp32_precision for each in _backends())


def _set_precision(precision: tuple[Any, ...]) -> None:
    if _precision() == precision:
        return
    older, *newer = precision
    if older is not None:
        torch.set_float32_matmul_precision(older)
    for each, value in zip(_backends(), newer, strict=True):
        if each.fp32_precision != value:
            each.fp32_precision = value


def _backends() -> list[Any]:
    own: Any = torch.backends
    return [own, own.cuda.matmul, own.cudnn.conv, own.cudnn.rnn, own.mkldnn.matmul, own.mkldnn.conv]


def _loggers(modules: Collection[str]) -> dict[str, logging.Logger]:
    """The root logger, and loggers that no installed package created; those of packages are shared."""
    found: dict[str, logging.Logger] = {"": logging.root}
    for name, each in list(logging.root.manager.loggerDict.items()):
        first = name.partition(".")[0]
        if isinstance(each, logging.Logger) and (first not in sys.modules or first in modules):
            found[name] = each
    return found


def _state(logger: logging.Logger) -> tuple[Any, ...]:
    return logger.level, logger.propagate, logger.disabled, list(logger.handlers)


def _set_loggers(states: dict[str, tuple[Any, ...]], modules: Collection[str]) -> None:
    """Restore the loggers; reset new ones to the state after their creation."""
    for name, logger in _loggers(modules).items():
        level, propagate, disabled, handlers = states.get(name, (logging.NOTSET, True, False, []))
        if logger.level != level:
            logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, disabled
        if logger.handlers != handlers:
            logger.handlers[:] = handlers


def _set_filters(state: tuple[Any, ...]) -> None:
    own, content, show = state
    warnings.showwarning = show
    if warnings.filters is own and list(own) == content:
        return
    own[:] = content
    warnings.filters = own
    with warnings.catch_warnings():  # makes Python forget decisions by the earlier filters
        pass
