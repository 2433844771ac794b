"""A check of the machine: versions, cores, device and speed."""

import platform
import time
from importlib.metadata import PackageNotFoundError, version

import torch

from lratlas.devices import cores, default_device, describe_device, memory_of_machine
from lratlas.training.compiling import why_not_compiled

_PACKAGES = ("lratlas", "torch", "polars", "altair", "scipy", "safetensors", "vl-convert-python")


def checkup() -> dict[str, str | int | float]:
    """Versions, cores, memory, device, whether compilation works, and the matrix-product peak of a thread, GFLOP/s."""
    device = default_device()
    reason = why_not_compiled(torch.device(device))
    facts: dict[str, str | int | float] = {
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "cores": cores(),
        "memory": f"{memory_of_machine() / 2**30:.1f} GiB",
        "device": describe_device(device),
        "compilation": f"no, about four times slower: {reason}" if reason else "works",
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        facts["sgemm GFLOP/s"] = round(sgemm_peak(), 1)
    finally:
        torch.set_num_threads(threads)
    return facts


def sgemm_peak(size: int = 1024, tries: int = 5) -> float:
    """Best rate of a float32 product of two square matrices, in GFLOP/s (2 size³ operations each)."""
    a, b = torch.ones(size, size), torch.ones(size, size)
    best = float("inf")
    for _ in range(tries):
        began = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best / 1e9


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
