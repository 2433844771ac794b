"""Which GPUs are there, with an `nvidia-smi` made here, and which of them each worker gets."""

from itertools import chain
from pathlib import Path

import pytest
import torch

from lratlas.search.program.process import divide_gpus, visible_gpus


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
