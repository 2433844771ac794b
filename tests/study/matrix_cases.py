"""Small tasks of every kind, each trained to its report and advice; as a script, a notebook's cell or a module.

What a script or notebook defines itself lies in ``__main__``: models, losses and the globals that they use.
"""

import json
import sys
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody gives it
from torch import Tensor, nn
from typer.testing import CliRunner

import lratlas
from lratlas.cli.app import app
from lratlas.errors import SearchError

SAMPLES = 64
LRS: dict[str, list[float]] = {
    "one LR": [0.1],
    "all diverged": [1e20, 1e30],
    "all at chance": [0.003, 0.01],
    "all too small": [1e-12, 1e-10],
}
OUTPUTS = {"classes": 3, "several labels": 4, "real values": 2, "own loss": 5}


class Net(nn.Module):
    """A body for the kind of inputs, and a head for the kind of targets."""

    def __init__(self, inputs: str, targets: str) -> None:
        super().__init__()
        self.inputs, self.targets = inputs, targets
        self.convolution = nn.Conv2d(1, 4, 3) if inputs == "images" else nn.Identity()
        self.embedding = nn.Embedding(7, 8) if inputs == "sequences" else nn.Identity()
        width = {"images": 64, "vectors": 6, "sequences": 8, "dictionaries": 6}[inputs]
        self.hidden, self.head = nn.Linear(width, 8), nn.Linear(8, OUTPUTS[targets])

    def forward(self, x: Tensor | None = None, *, left: Tensor | None = None, right: Tensor | None = None) -> Tensor:
        if left is not None and right is not None:
            x = torch.cat([left, right], 1)
        assert x is not None
        if self.inputs == "images":
            x = self.convolution(x).flatten(1)
        if self.inputs == "sequences":
            x = self.embedding(x)
        outputs = self.head(F.relu(self.hidden(x)))
        if self.inputs == "sequences":
            # One prediction for each position of the sequence, the classes on the axis where PyTorch's loss has them.
            return outputs.movedim(-1, 1) if self.targets == "classes" else outputs.mean(1)
        return outputs


def pairs(outputs: Tensor, targets: Tensor) -> Tensor:
    """Samples of one class together, others apart: a loss of the whole batch, without an accuracy."""
    unit = F.normalize(outputs, dim=1)
    same = (targets[:, None] == targets[None]).to(unit.dtype)
    return ((1 - unit @ unit.T) * same + F.relu(unit @ unit.T) * (1 - same)).mean()


def data(inputs: str, targets: str, lrs: str) -> tuple[Any, Tensor]:
    """Inputs and targets; targets that have nothing to do with the inputs where nothing is to be learned."""
    draws = torch.Generator().manual_seed(0)
    base = torch.randn(SAMPLES, 6, generator=draws)
    words = torch.randint(7, (SAMPLES, 5), generator=draws)
    x: Any = {
        "images": base[:, None, :, None] + 0.1 * torch.randn(SAMPLES, 1, 6, 6, generator=draws),
        "vectors": base,
        "sequences": words,
        "dictionaries": {"left": base[:, :2], "right": base[:, 2:]},
    }[inputs]
    if lrs == "all at chance":
        base, words = torch.randn(SAMPLES, 6, generator=draws), torch.randint(7, (SAMPLES, 5), generator=draws)
    known = (words.float() - 3)[:, :4] if inputs == "sequences" else base[:, :4]
    if targets == "classes":
        return x, words % 3 if inputs == "sequences" else known[:, :3].argmax(1)
    if targets == "several labels":
        return x, (known > 0).float()
    return (x, known[:, :2]) if targets == "real values" else (x, (known[:, 0] > 0).long())


def made_task(case: dict[str, str]) -> lratlas.Task:
    """The task of a combination."""
    inputs, targets = case["inputs"], case["targets"]
    losses: dict[str, Any] = {
        "classes": nn.CrossEntropyLoss() if inputs == "sequences" else "cross_entropy",
        "several labels": "binary_cross_entropy",
        "real values": "mse",
        "own loss": pairs,
    }
    both = data(inputs, targets, case["lrs"])
    return lratlas.Task(
        model=lambda: Net(inputs, targets), train=both, test=both, loss=losses[targets], batch_size=16, name="matrix"
    )


def run(case: dict[str, str], folder: str) -> dict[str, Any]:
    """Explore one combination and find its LR; what came out of it, for the test to look at."""
    task, notices = made_task(case), list[str]()
    lrs = LRS[case["lrs"]]
    atlas = lratlas.explore(
        task,
        pretrain={"lrs": lrs, "epochs": 3},
        finetune={"lrs": [min(lrs)], "epochs": 1},
        average={"counts": [2]},
        training={"compile": case["program"] == "compiled"},
        folder=folder,
        notice=notices.append,
    )
    shown = {
        name: CliRunner().invoke(app, words)
        for name, words in {
            "status": ["status", folder],
            "runs": ["show", folder, "runs"],
            "regimes": ["show", folder, "regimes", "--format", "json"],
        }.items()
    }
    try:
        advice = str(lratlas.find(task, steps=64, lrs=lrs, folder=f"{folder}-search"))
    except SearchError as error:
        advice = f"SearchError: {error}"
    return {
        "report": (Path(folder) / "report.html").stat().st_size,
        "summary": atlas.summary,
        "accuracies": atlas.table("runs")["test_accuracy"].to_list(),
        "diverged": atlas.table("runs")["diverged"].to_list(),
        "regimes": atlas.table("regimes").select("regime", "reason").rows(),
        "codes": {name: result.exit_code for name, result in shown.items()},
        "advice": advice,
        "notices": notices,
    }


def run_all(cases: list[dict[str, str]], folder: str) -> list[dict[str, Any]]:
    """All combinations, one after the other."""
    return [run(case, f"{folder}/{at}") for at, case in enumerate(cases)]


if __name__ == "__main__" and Path(sys.argv[0]).name == "training.py":
    given = cast("list[dict[str, str]]", json.loads(sys.argv[1]))
    Path(sys.argv[3]).write_text(json.dumps(run_all(given, sys.argv[2])), encoding="utf-8")
