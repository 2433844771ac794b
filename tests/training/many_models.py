"""Models of many kinds, whose fingerprints are the same in every process; as a program, this prints them."""

import json
import sys

import numpy as np
import torch
from torch import Tensor, nn

from lratlas import Task
from lratlas.training.fingerprint import fingerprint_parts


class Sequence(nn.Module):
    def __init__(self, attention: bool) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 4)
        self.mix = nn.MultiheadAttention(8, 2, batch_first=True) if attention else nn.LSTM(8, 8, batch_first=True)
        self.attends = attention

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x[:, 0])
        h = h + (self.mix(h, h, h)[0] if self.attends else self.mix(h)[0])
        return self.last(self.norm(h).mean(1))


class Single(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = dense()

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            raise TypeError
        return self.inner(x)


def dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))


def normal() -> nn.Module:
    first = nn.Linear(64, 32)
    nn.init.normal_(first.weight)
    return nn.Sequential(nn.Flatten(), first, nn.LayerNorm(32), nn.GELU(), nn.Dropout(), nn.Linear(32, 4))


MODELS = {
    "conv": lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)),
    "dense": dense,
    "normal": normal,
    "lstm": lambda: Sequence(False),
    "attention": lambda: Sequence(True),
    "float32": Single,
}


def fingerprints() -> dict[str, dict[str, str]]:
    """The parts of the fingerprint of each model's task."""
    x = np.random.default_rng(0).standard_normal((60, 1, 8, 8))
    y = torch.arange(60) % 4
    found = dict[str, dict[str, str]]()
    for name, model in MODELS.items():
        task = Task(model=model, train=(x, y), test=(x, y), batch_size=20, rule=torch.optim.AdamW).prepared
        assert task.conformance.exact == (name != "float32")
        found[name] = fingerprint_parts(task)
    return found


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps(fingerprints()))  # noqa: T201 - for the process that started this one
