"""Trainings at two LRs, taken in turns and measured on the way, next to each of them in a plain call."""

import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lratlas.rng import seed_generators
from lratlas.search.driven.drive import Driven, begin_trial
from lratlas.search.driven.outputs import Outputs
from lratlas.search.driven.steps import follow_steps
from lratlas.search.driven.trial import Reached, Trial
from lratlas.search.driven.validation import make_validation
from lratlas.search.segments import make_segment

STOPS = (4, 10, 16)
LRS = (0.01, 0.1)
Record = list[tuple[float, ...]]


def data(count: int = 64) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(5)
    x = torch.randn(count, 4, generator=draws)
    return x, (x[:, 0] > 0).long()


def small(width: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.1), nn.Linear(width, 2))


def digits(*tensors: Tensor) -> tuple[float, ...]:
    """All numbers of some tensors, to be compared to the last digit."""
    return tuple(number for each in tensors for number in each.detach().double().flatten().tolist())


def rude(model: nn.Module) -> float:
    """A measurement that leaves nothing as it was."""
    x, y = data(16)
    torch.manual_seed(99)
    random.seed(99)
    model.train()
    with torch.enable_grad():
        loss = nn.functional.cross_entropy(model(x.to(next(model.parameters()).dtype)), y)
        loss.backward()
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(0.5)
    model.eval()
    torch.set_default_dtype(torch.float64)
    return loss.item()


@contextmanager
def trials(
    train: Callable[..., object], folder: Path, *, value: Any = "rude(model)", imposed: bool = False, full: int = 64
) -> Generator[Callable[[float], Callable[[int], Reached]]]:
    """A function that begins a training at an LR, and returns one that takes it on to a step."""
    outputs, running = Outputs(), list[Trial]()
    made = make_validation(value) if value is not None else None
    driven = Driven(start=lambda segment, _: train(segment.lr), imposed=imposed, validation=made)
    everyone = list[Trial]()

    def leave(trial: Trial) -> None:
        running[:] = [trial]
        trial.leave()
        running.clear()

    def begin(lr: float) -> Callable[[int], Reached]:
        first = make_segment(lr=lr, seed=0, start=0, stop=STOPS[0], parent=None)
        trial = begin_trial(driven, first, full=full, outputs=outputs, output=folder / f"{lr:g}.txt")
        everyone.append(trial)

        def on(stop: int) -> Reached:
            running[:] = [trial]
            parent = "before" if trial.step else None
            reached = trial.run(make_segment(lr=lr, seed=0, start=trial.step, stop=stop, parent=parent))
            running.clear()
            return reached

        return on

    with follow_steps(lambda: running[0] if running else None):
        try:
            yield begin
        finally:
            for each in everyone:
                leave(each)


def in_turns(train: Callable[[float, Record], object], folder: Path, **options: Any) -> dict[float, Record]:
    """What trainings at two LRs record, suspended and measured in turns."""
    records = {lr: Record() for lr in LRS}

    def start(lr: float) -> object:
        return train(lr, records[lr])

    with trials(start, folder, **options) as begin:
        on = {lr: begin(lr) for lr in LRS}
        for stop in STOPS:
            for lr in LRS:
                reached = on[lr](stop)
                assert reached.error is None, reached.error
    return records


def by_itself(train: Callable[[float, Record], object], lr: float) -> Record:
    """What the training records in a plain call."""
    record = Record()
    with seed_generators(0):
        train(lr, record)
    return record


def assert_same(train: Callable[[float, Record], object], folder: Path, *, least: int = 15, **options: Any) -> None:
    """Each training has recorded the same as by itself, as far as it was taken."""
    for lr, record in in_turns(train, folder, **options).items():
        assert len(record) >= least
        assert record == by_itself(train, lr)[: len(record)]
