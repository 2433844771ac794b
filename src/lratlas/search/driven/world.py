"""What is global in a process, and belongs to one training while that training runs."""

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
"""For trainings of a search, unless set: one run of Weights & Biases would be shared by all, with its configuration."""
_ONE = threading.Lock()
_SHARED = {
    "accelerate.state": tuple(f"{each}State._shared_state" for each in ("Partial", "Accelerator", "Gradient")),
    "hydra.core.singleton": ("Singleton._instances",),
}
"""Dictionaries of packages, by module, of which each training needs its own: they say where a loop is."""
_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
)
_JOBS = ("GlobalHydra", "HydraConfig", "JobRuntime")  # of Hydra's singletons; the others are the same for all


@dataclass(frozen=True, kw_only=True)
class World:
    """The global state of a process: generators, arguments, folders, modules of a script, loggers, PyTorch's settings.

    Attributes:
        generators: States of the random generators of PyTorch, NumPy and Python.
        argv: The arguments.
        folder: The current folder; None where it was deleted.
        path: Where modules are looked for.
        environment: The environment variables.
        modules: Modules of a script, by name.
        settings: PyTorch's settings.
        precision: PyTorch's settings of precision.
        loggers: By name, those that no installed package has made, with their settings; the root's name is empty.
        filters: The filters of warnings.
        collecting: Whether garbage is collected.
        shared: What the dictionaries of packages hold.
        starting: How processes are started; None where that is not decided.
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
    """The present state.

    Args:
        roots: Folders whose modules belong to a training, since it imported them and may have changed them.
    """
    folder = None
    with suppress(FileNotFoundError):  # a temporary one that was deleted
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
    """Make a state the present one."""
    set_generators(state.generators)
    sys.argv, sys.path = list(state.argv), list(state.path)
    if state.folder is not None:
        with suppress(OSError):  # it was deleted
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
            del each[key]  # in place: objects have it as their attributes
        each.update(_training_content(state.shared.get(name, {})))


@contextmanager
def several_trainings() -> Generator[None]:
    """In the block, each training may call what Python allows in the main thread, or PyTorch once, in a process.

    Raises:
        SearchError: Another thread is in such a block, or this one.
    """
    if not _ONE.acquire(blocking=False):
        raise SearchError(
            "Another search that trains a function or a script runs in this process: let it end first, or start each in"
            " a process of its own."
        )
    try:
        with _ignore_signals(), _share_group():
            yield
    finally:
        _ONE.release()


@contextmanager
def _ignore_signals() -> Generator[None]:
    """In the block, a handler that a thread would install is ignored.

    An alarm without its handler would end the process: for it, the thread gets Python's error.
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
    """In the block, a process group of one process is made once, and is the group of all trainings."""
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
    """The modules that lie in some folders, and `__main__`."""
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
    """The dictionaries of packages that were imported, by their names."""
    modules = ((sys.modules[name], names) for name, names in _SHARED.items() if name in sys.modules)
    found: dict[str, Any] = {}
    for module, names in modules:
        for name in names:
            with suppress(AttributeError):  # other versions have other ones
                found[name] = attrgetter(name)(module)
    return found


def _training_content(shared: dict[Any, Any]) -> dict[Any, Any]:
    """What a dictionary holds of a training; lists and dictionaries in it may be changed in place."""
    own = {key: each for key, each in shared.items() if getattr(key, "__name__", _JOBS[0]) in _JOBS}
    return {key: each.copy() if type(each) in {list, dict} else each for key, each in own.items()}


def is_installed(file: str) -> bool:
    """Whether a file belongs to a package that is installed."""
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
    """The precision of matrix products, by PyTorch's older setting, and by the newer ones for each backend."""
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
    """The root logger, and those of no installed package: packages are shared, and so are their loggers."""
    found: dict[str, logging.Logger] = {"": logging.root}
    for name, each in list(logging.root.manager.loggerDict.items()):
        first = name.partition(".")[0]
        if isinstance(each, logging.Logger) and (first not in sys.modules or first in modules):
            found[name] = each
    return found


def _state(logger: logging.Logger) -> tuple[Any, ...]:
    return logger.level, logger.propagate, logger.disabled, list(logger.handlers)


def _set_loggers(states: dict[str, tuple[Any, ...]], modules: Collection[str]) -> None:
    """The loggers as they were; those that are new as if they had just been made."""
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
    with warnings.catch_warnings():  # it makes Python forget what it has decided by the filters before
        pass
