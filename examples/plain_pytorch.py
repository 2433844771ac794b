"""The initial LR of an ordinary PyTorch loop: found by ask-and-tell, used, and watched.

In this folder:  python plain_pytorch.py
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import lratlas
from lratlas.data import digits
from lratlas.search.segments import Segment

STEPS = 1_000  # of a full training
FOLDER = Path("plain-pytorch-search")
LOSS = nn.CrossEntropyLoss()

(PIXELS, DIGITS), (HELD_OUT, TRUTH) = digits()  # for training and for validation


def fresh(seed: int, lr: float) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A new model and its optimizer."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return model, torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def batch(seed: int, step: int) -> tuple[Tensor, Tensor]:
    """The mini-batch of a step: the same for all LRs, wherever a segment begins."""
    chosen = torch.randint(len(DIGITS), (32,), generator=torch.Generator().manual_seed(1_000_000 * seed + step))
    return PIXELS[chosen], DIGITS[chosen]


def accuracy(model: nn.Module) -> float:
    """On the validation set."""
    with torch.no_grad():
        return (model(HELD_OUT).argmax(1) == TRUTH).float().mean().item()


def train(part: Segment) -> dict[str, Any]:
    """Train a segment from where its parent ended, keep its final state, and return what the finder records."""
    model, optimizer = fresh(part.seed, part.lr)
    if part.parent:
        state = torch.load(FOLDER / f"{part.parent}.pt")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    averaged, losses = AveragedModel(model), list[float]()
    for step in range(part.start, part.stop):
        for group in optimizer.param_groups:
            group["lr"] = part.lr_at(step)
        x, y = batch(part.seed, step)
        loss = LOSS(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step >= part.average_from:
            averaged.update_parameters(model)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, FOLDER / f"{part.name}.pt")
    return {"value": accuracy(model), "averaged": accuracy(averaged), "losses": losses}


def train_to_the_end(advice: lratlas.Advice, lr: float) -> None:
    """One full training as advised, in a regime that `watch` tells."""
    model, optimizer = fresh(0, lr)
    watch = lratlas.watch(optimizer, model=model, average=True)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = advice.lr_at(step)
        x, y = batch(0, step)
        loss = LOSS(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch(loss)
    ahead = watch.ahead(lambda: accuracy(model))
    print(watch.report())
    print(f"Validation accuracy: {ahead.current:.3f}, of the averaged weights {ahead.averaged:.3f}")


def main() -> None:
    """Search, then train."""
    finder = lratlas.Finder(FOLDER, steps=STEPS, direction="maximize", chance=0.1, samples=len(TRUTH))
    while part := finder.ask():
        finder.tell(part, **train(part))
        for file in FOLDER.glob("*.pt"):
            if file.stem not in finder.needed():
                file.unlink()
    print(advice := finder.advice())
    if advice.lr is not None:  # else no LR differed from the others
        train_to_the_end(advice, advice.lr)


if __name__ == "__main__":
    main()
