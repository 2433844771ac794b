"""What `find` advises where nothing is learned at first: the README's MLP, deeper and deeper.

For each number of hidden layers: the advice, the test accuracy of full trainings as advised, and of every LR of a dense
grid. Trainings are a plain PyTorch loop, with seeds that the search did not see; the weights of the last tenth are
averaged.

    python -m benchmarks.plateau [--layers 2 4 6 8] [--seeds 5] [--budget 1.5] [--epochs 20]
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import lratlas
from lratlas.config.grid import lr_grid

BATCH, TRAIN = 32, 1200
GRID = lr_grid(1e-3, 1.0, per_decade=4)


def model(layers: int) -> nn.Sequential:
    """The README's MLP with this many hidden layers."""
    sizes = [64] * (layers + 1)
    hidden = [part for first, second in pairwise(sizes) for part in (nn.Linear(first, second), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(64, 10))


def data() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test set, as the README splits them."""
    x, y = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    return (x[:TRAIN].float() / 16, y[:TRAIN]), (x[TRAIN:].float() / 16, y[TRAIN:])


def test_accuracy(layers: int, lr: float, *, seed: int, epochs: int) -> float:
    """The test accuracy of averaged weights after a full training at a constant LR."""
    torch.manual_seed(10_000 + seed)
    net, ((x, y), (test_x, test_y)) = model(layers), data()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    per_epoch, average = TRAIN // BATCH, AveragedModel(net)
    order, steps = torch.cat([torch.randperm(TRAIN)[: per_epoch * BATCH] for _ in range(epochs)]), epochs * per_epoch
    for step, at in enumerate(order.split(BATCH)):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[at]), y[at]).backward()
        optimizer.step()
        if step >= 0.9 * steps:
            average.update_parameters(net)
    with torch.no_grad():
        return float((average(test_x).argmax(1) == test_y).double().mean())


def accuracies(layers: int, lr: float, *, seeds: int, epochs: int) -> list[float]:
    """The test accuracies with several seeds."""
    return [test_accuracy(layers, lr, seed=seed, epochs=epochs) for seed in range(seeds)]


def row(layers: int, *, budget: float, seeds: int, epochs: int) -> str:
    """A row of the table."""
    train, test = data()
    task = lratlas.Task(
        model=lambda: model(layers),
        train=train,
        test=test,
        batch_size=BATCH,
        rule={"name": "sgd", "momentum": 0.9},
    )
    advice = lratlas.find(task, epochs=epochs, budget=budget)
    grid = {lr: accuracies(layers, lr, seeds=seeds, epochs=epochs) for lr in GRID}
    best = max(grid, key=lambda lr: float(np.mean(grid[lr])))
    advised = "–"
    if advice.lr is not None:
        advised = shown(accuracies(layers, advice.lr, seeds=seeds, epochs=epochs))
    lr = "–" if advice.lr is None else f"{advice.lr:.2g} ({advice.low:.2g} to {advice.high:.2g})"
    return f"| {layers} | {advice.verdict} | {lr} | {advised} | {best:.2g} | {shown(grid[best])} | {advice.cost:.2f} |"


def shown(values: Sequence[float]) -> str:
    """Mean and standard error, in percent."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{100 * np.mean(values):.1f} ± {100 * error:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Advice for deeper and deeper plain MLPs.")
    parser.add_argument("--layers", nargs="+", type=int, default=[2, 4, 6, 8])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=1.5)
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| hidden layers | verdict | advised LR | test accuracy there | best of the grid | test accuracy | cost |")
    print("|---|---|---|---|---|---|---|")
    for layers in given.layers:
        print(row(layers, budget=given.budget, seeds=given.seeds, epochs=given.epochs), flush=True)


if __name__ == "__main__":
    main()
