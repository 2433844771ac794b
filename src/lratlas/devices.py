"""Everything that depends on the kind of a device: generators, memory, precision, and the GPUs of processes.

PyTorch is imported late, since help texts and searches for a command do not need it.
"""

import os
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

VARIABLE = "CUDA_VISIBLE_DEVICES"
ENVIRONMENT: Mapping[str, str] = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""Environment variables that make cuBLAS deterministic; it reads them once per process."""

_PATIENCE = 20.0  # seconds for nvidia-smi, because its first call may start the driver


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_of_machine() -> int:
    """Bytes of main memory; 0 if unknown."""
    known = {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= {*getattr(os, "sysconf_names", ())}
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else 0


def default_device() -> str:
    """The device for ``auto``: a CUDA device if there is one, otherwise the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def describe_device(device: str) -> str:
    """A device's name for people, with its memory and driver if it is a CUDA device."""
    import torch

    if not device.startswith("cuda"):
        return device
    about = torch.cuda.get_device_properties(device)
    return f"{about.name}, {about.total_memory / 2**30:.0f} GiB, driver {_driver() or 'unknown'}"


def default_workers(device: str) -> int:
    """Number of processes that train at once by default: one per core, or one per visible GPU.

    Args:
        device: The device of the study: ``cpu`` for all cores, ``cuda`` for all visible GPUs, others for one process.
    """
    return cores() if device == "cpu" else max(1, len(shared_gpus(device)))


def visible_gpus() -> tuple[str, ...]:
    """CUDA devices that child processes would see, by their names in ``CUDA_VISIBLE_DEVICES``."""
    given = os.environ.get(VARIABLE)
    if given is None:
        return tuple(map(str, range(_count_listed_gpus() or _count_gpus())))
    names = [name.strip() for name in given.split(",")]
    # As in CUDA, everything after an invalid name is ignored.
    end = next((place for place, name in enumerate(names) if name in {"", "-1", "NoDevFiles"}), len(names))
    return tuple(names[:end])


def shared_gpus(device: str) -> tuple[str, ...]:
    """The visible GPUs, by name, if processes share them out among themselves; none for a device that has a number.

    Args:
        device: The device of the study.
    """
    return visible_gpus() if device == "cuda" else ()


def divide_gpus(gpus: Sequence[str], workers: int) -> list[dict[str, str]]:
    """Environment variables that give each worker an equal part of the GPUs, or one GPU in turn.

    Args:
        gpus: Their names.
        workers: Number of parallel programs.

    Returns:
        ``CUDA_VISIBLE_DEVICES`` of each worker; empty without GPUs.

    Example:
        >>> divide_gpus(["0", "1"], 3)
        [{'CUDA_VISIBLE_DEVICES': '0'}, {'CUDA_VISIBLE_DEVICES': '1'}, {'CUDA_VISIBLE_DEVICES': '0'}]
    """
    if not gpus:
        return [{} for _ in range(workers)]
    count = len(gpus)
    if workers > count:
        return [{VARIABLE: gpus[place % count]} for place in range(workers)]
    ends = [count * place // workers for place in range(workers + 1)]
    return [{VARIABLE: ",".join(gpus[start:end])} for start, end in pairwise(ends)]


def worker_environment(gpus: Sequence[str], worker: int) -> dict[str, str]:
    """Environment variables of a study's worker process; with several GPUs, each worker sees one of them.

    Args:
        gpus: The names of the GPUs that workers share (see `shared_gpus`).
        worker: Number of the worker, from 0.
    """
    return {**ENVIRONMENT, **({VARIABLE: gpus[worker % len(gpus)]} if gpus else {})}


def _driver() -> str:
    """Version of the CUDA driver; empty if unknown."""
    return (_ask_driver("--query-gpu=driver_version", "--format=csv,noheader").splitlines() or [""])[0].strip()


def _count_listed_gpus() -> int:
    """Number of GPUs that the driver lists; 0 without a driver."""
    return sum(line.startswith("GPU ") for line in _ask_driver("-L").splitlines())


def _ask_driver(*options: str) -> str:
    """Output of ``nvidia-smi``; empty without a driver."""
    try:
        return subprocess.run(
            ["nvidia-smi", *options],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _count_gpus() -> int:
    """Number of GPUs that PyTorch sees, including GPUs of other vendors."""
    from torch.cuda import device_count

    return device_count()


def _in_use() -> tuple[str, Any] | None:
    """The kind of accelerator that this process has initialized, with PyTorch's module for it; never initializes it."""
    import torch

    found = torch.accelerator.current_accelerator()
    if found is None:
        return None
    module: Any = torch.get_device_module(found)
    # MPS has no such function, and nothing to initialize.
    return (found.type, module) if getattr(module, "is_initialized", module.is_available)() else None


def generator_states() -> "dict[str, Tensor]":
    """States of the accelerator's generators, by kind and number; empty if no accelerator is in use."""
    found = _in_use()
    if found is None:
        return {}
    kind, module = found
    states = module.get_rng_state_all() if hasattr(module, "get_rng_state_all") else [module.get_rng_state()]
    return {f"{kind}/{number}": state for number, state in enumerate(states)}


def set_generator_states(states: "Mapping[str, Tensor]") -> None:
    """Set the accelerator's generators to states from `generator_states`; states of other accelerators are ignored."""
    found = _in_use()
    if found is None:
        return
    kind, module = found
    for number in range(module.device_count()):
        if (state := states.get(f"{kind}/{number}")) is not None:
            module.set_rng_state(state, number)


def seed_devices(seed: int) -> None:
    """Seed the generators of the accelerator in use."""
    if found := _in_use():
        module = found[1]
        getattr(module, "manual_seed_all", module.manual_seed)(seed)


def release_memory() -> None:
    """Return cached memory of the accelerator in use to the system."""
    if (found := _in_use()) and hasattr(found[1], "empty_cache"):
        found[1].empty_cache()


def has_float64(device: "torch.device") -> bool:
    """Whether a device computes in float64; Apple's GPUs do not."""
    return device.type != "mps"


def widest(device: "torch.device") -> "torch.dtype":
    """The widest dtype that a device computes in."""
    import torch

    return torch.float64 if has_float64(device) else torch.float32


def moved(value: "Tensor", device: "torch.device") -> "Tensor":
    """The tensor on a device; float64 stays on the host if the device does not have it."""
    import torch

    return value.to(device) if value.dtype != torch.float64 or has_float64(device) else value.cpu()


def widened(value: "Tensor") -> "Tensor":
    """The tensor in float64, for sums over samples; on the host if its device does not have float64."""
    return (value if has_float64(value.device) else value.cpu()).double()


def allows_tf32(device: str) -> bool:
    """Whether convolutions in float32 train with TF32, as PyTorch's default is on CUDA devices that have it."""
    import torch

    return device.startswith("cuda") and torch.cuda.get_device_capability(device)[0] >= 8


@contextmanager
def float32_precision(*, tf32: bool) -> Generator[None]:
    """Set the precision of float32 on CUDA devices in the block; matrix products never use TF32.

    Args:
        tf32: Whether convolutions and recurrent layers may use TF32, which rounds their inputs to 10 bits.
    """
    import torch

    own: Any = torch.backends
    name = "tf32" if tf32 else "ieee"
    older = [(own.cudnn, "allow_tf32", tf32), (own.cuda.matmul, "allow_tf32", False)]
    newer = [(own.cudnn.conv, "fp32_precision", name), (own.cudnn.rnn, "fp32_precision", name)]
    newer.append((own.cuda.matmul, "fp32_precision", "ieee"))
    wanted = older
    try:
        before = [(owner, key, getattr(owner, key)) for owner, key, _ in older]
    except RuntimeError:  # PyTorch refuses to read the older settings once a newer one was set
        wanted, before = newer, [(owner, key, getattr(owner, key)) for owner, key, _ in newer]
    try:
        _set_attributes(wanted)
        yield
    finally:
        _set_attributes(before)


def _set_attributes(values: Sequence[tuple[Any, str, Any]]) -> None:
    for owner, name, value in values:
        setattr(owner, name, value)


@contextmanager
def reproducible(device: "torch.device") -> Generator[None]:
    """Use deterministic algorithms on an accelerator in the block, wherever PyTorch has one for an operation."""
    import torch

    if device.type == "cpu":  # all of its algorithms are deterministic
        yield
        return
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # pyright: ignore[reportAttributeAccessIssue]
    os.environ.setdefault(*next(iter(ENVIRONMENT.items())))
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # pyright: ignore[reportAttributeAccessIssue]
