"""The benchmark of the image models runs and prints what it promises; no timing is judged."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lratlas.models.convnet import ConvNet
from lratlas.models.resnet import ResNet18

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "images.py"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("images")


def models() -> list[nn.Module]:
    return [
        ConvNet(channels=3, classes=10, width=8, scale_invariant=True),
        ResNet18(channels=3, classes=10, width=4, scale_invariant=True),
    ]


@pytest.mark.parametrize("model", models(), ids=["ConvNet", "ResNet-18"])
def test_operations_of_the_forward_pass_agree_with_pytorchs_counter(benchmark: ModuleType, model: nn.Module) -> None:
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, 33, 33))
    assert benchmark.forward_operations(model, 3, 33) == counter.get_total_flops()


@pytest.mark.parametrize("model", models(), ids=["ConvNet", "ResNet-18"])
def test_a_backward_pass_takes_about_twice_as_many(benchmark: ModuleType, model: nn.Module) -> None:
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(2, 3, 32, 32)).sum().backward()
    counted = 3 * 2 * benchmark.forward_operations(model, 3, 32)
    # Only the gradients of the images and of the frozen head are left out.
    assert 0.95 * counted < counter.get_total_flops() < counted


def test_operations_of_the_convnet_follow_from_its_sizes(benchmark: ModuleType) -> None:
    pixels = (32**2, 32**2, 16**2, 8**2)
    widths = (3, 8, 16, 32, 64)
    products = sum(9 * widths[at] * widths[at + 1] * pixels[at] for at in range(4)) + 64 * 10
    assert benchmark.forward_operations(models()[0], 3, 32) == 2 * products


@pytest.mark.long
def test_quick_json_has_both_models_beside_the_plain_loop(quick: Callable[..., Any]) -> None:
    data = quick("images.py")
    assert {"processor", "system", "python", "torch", "cores", "sgemm GFLOP/s"} <= set(data["machine"])
    assert [(row["model"], row["workers"], row["compiled"]) for row in data["rows"]] == [
        ("ConvNet", 2, False),
        ("ResNet-18", 2, False),
    ]
    for row in data["rows"]:
        rounds = row["rounds"]
        assert len(rounds) == 2
        assert all(value > 0 for each in rounds for value in each.values())
        # The median of two is their mean.
        assert row["trainer"] == pytest.approx(sum(each["trainer"] for each in rounds) / 2)
        assert row["plain_max"] == max(each["plain"] for each in rounds)
        assert row["ratio"] == pytest.approx(sum(each["trainer"] / each["plain"] for each in rounds) / 2)
        assert row["share"] == pytest.approx(
            sum(row["operations"] * each["trainer"] / (each["peak"] * 1e9) for each in rounds) / 2
        )
        assert row["compile_seconds"] > 0
