"""What depends on the kind of a device: GPUs for processes, generators, precision, memory."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from lratlas.devices import (
    allows_tf32,
    default_workers,
    divide_gpus,
    float32_precision,
    moved,
    reproducible,
    shared_gpus,
    visible_gpus,
    widened,
    worker_environment,
)


def driver(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a script be the only program that is found, and PyTorch see no GPU."""
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", int)


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 'GPU 0: NVIDIA H200 (UUID: GPU-1)'; echo 'GPU 1: NVIDIA H200 (UUID: GPU-2)'", ("0", "1")),
        ("echo 'GPU 0: A100 (UUID: GPU-1)'; echo '  MIG 1g.5gb  Device  0: (UUID: MIG-1)'", ("0",)),
        ("echo 'NVIDIA-SMI has failed'; exit 9", ()),
        ("exit 0", ()),
        (r"printf '\377'", ()),  # not UTF-8
    ],
)
def test_the_driver_lists_the_gpus(
    script: str, found: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(tmp_path, monkeypatch, script)
    assert visible_gpus() == found


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("0", ("0",)),
        ("3, 1", ("3", "1")),
        ("GPU-8a,MIG-2", ("GPU-8a", "MIG-2")),
        ("", ()),
        ("-1", ()),
        ("2,-1,3", ("2",)),
    ],
)
def test_what_the_user_made_visible_counts(
    given: str, found: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(tmp_path, monkeypatch, "echo 'GPU 0: NVIDIA H200 (UUID: GPU-1)'")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == found


def test_without_a_driver_there_is_what_torch_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert visible_gpus() == ("0", "1", "2")


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8])
def test_gpus_are_shared_out(count: int, workers: int) -> None:
    names = [str(number) for number in range(count)]
    parts = [part["CUDA_VISIBLE_DEVICES"].split(",") for part in divide_gpus(names, workers)]
    assert len(parts) == workers
    if workers <= count:
        assert list(chain(*parts)) == names
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    else:
        uses = [parts.count([name]) for name in names]
        assert sum(uses) == workers
        assert max(uses) - min(uses) <= 1


def test_without_gpus_nothing_is_said_of_them() -> None:
    assert divide_gpus([], 2) == [{}, {}]


def test_each_worker_has_one_gpu_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8a")
    given = [worker_environment(shared_gpus("cuda"), worker).get("CUDA_VISIBLE_DEVICES") for worker in range(3)]
    assert given == ["3", "GPU-8a", "3"]
    # A device that the user named, or a CPU, is the same for all workers.
    for device in ("cuda:1", "cpu"):
        assert "CUDA_VISIBLE_DEVICES" not in worker_environment(shared_gpus(device), 1)


def test_there_is_one_worker_per_core_or_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lratlas.devices.cores", lambda: 5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert [default_workers(device) for device in ("cpu", "cuda", "cuda:1", "mps")] == [5, 3, 1, 1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert default_workers("cuda") == 1


@pytest.fixture
def own_precision() -> Iterator[None]:
    with torch.backends.cudnn.flags(allow_tf32=True):
        yield


def newer_settings() -> list[str]:
    own: Any = torch.backends
    return [own.cudnn.conv.fp32_precision, own.cudnn.rnn.fp32_precision, own.cuda.matmul.fp32_precision]


@pytest.mark.usefixtures("own_precision")
def test_tf32_is_set_in_the_block_only_and_other_code_can_read_the_setting() -> None:
    own = torch.backends
    with float32_precision(tf32=True):
        assert (own.cudnn.allow_tf32, own.cuda.matmul.allow_tf32) == (True, False)
        assert newer_settings()[:2] == ["tf32", "tf32"]
        with float32_precision(tf32=False):
            assert (own.cudnn.allow_tf32, own.cuda.matmul.allow_tf32) == (False, False)
            assert "tf32" not in newer_settings()
        assert own.cudnn.allow_tf32
    assert not allows_tf32("cpu")


def test_a_process_with_the_newer_settings_has_them_back() -> None:
    code = """
import torch
from lratlas.devices import float32_precision
conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
conv.fp32_precision, matmul.fp32_precision = "ieee", "tf32"
with float32_precision(tf32=True):
    assert (conv.fp32_precision, matmul.fp32_precision) == ("tf32", "ieee")
assert (conv.fp32_precision, matmul.fp32_precision) == ("ieee", "tf32")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_deterministic_algorithms_are_asked_for_on_accelerators_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with reproducible(torch.device("cpu")):
        assert not torch.are_deterministic_algorithms_enabled()
    with reproducible(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert worker_environment((), 0)["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


class Apple(torch.Tensor):
    """A tensor that says that it is on an Apple GPU."""

    device = torch.device("mps")  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]


def test_sums_are_in_float64_also_where_a_device_has_none() -> None:
    host = torch.ones(2, dtype=torch.float16)
    assert widened(host).dtype == torch.float64
    away = torch.ones(2).as_subclass(Apple)
    assert widened(away).dtype == torch.float64
    assert moved(torch.ones(2, dtype=torch.float64), torch.device("mps")).device.type == "cpu"
    assert moved(torch.ones(2, dtype=torch.float64), torch.device("meta")).device.type == "meta"
    assert moved(torch.ones(2), torch.device("meta")).device.type == "meta"
