"""A check of the machine: versions, cores, device and speed."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version

import torch

from lratlas.training.compiling import can_compile

_PACKAGES = ("lratlas", "torch", "polars", "altair", "scipy", "safetensors", "vl-convert-python")


def checkup() -> dict[str, str | int | float]:
    """Versions, cores, device, compiler, and the measured matrix-product peak of one thread in GFLOP/s."""
    facts: dict[str, str | int | float] = {
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
        "compiler": "found" if can_compile() else "none: training runs uncompiled, about four times slower",
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
