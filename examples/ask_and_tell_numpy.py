"""The initial LR of a training that knows no PyTorch: a network in NumPy alone, by ask-and-tell.

In this folder:  python ask_and_tell_numpy.py
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lratlas
from lratlas.search.segments import Segment, make_segment

Array = NDArray[np.float64]
Weights = dict[str, Array]

STEPS = 1_000  # of a full training
FOLDER = Path("numpy-search")
MOMENTUM = 0.9

with np.load(str(files("lratlas.data") / "digits.npz")) as file:
    pixels, digits = file["images"].reshape(-1, 64), file["labels"]
order = np.random.default_rng(0).permutation(len(digits))
PIXELS, DIGITS = pixels[order] / 16, digits[order]
TRAINED = 1_200  # images; the rest is for validation


def fresh(seed: int) -> Weights:
    """Weights of a network with one hidden layer."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(0, (2 / 64) ** 0.5, (64, 64)), rng.normal(0, (1 / 64) ** 0.5, (64, 10))
    return {"first": first, "bias": np.zeros(64), "second": second, "shift": np.zeros(10)}


def batch(seed: int, step: int) -> NDArray[np.int64]:
    """The images of a step: the same for all LRs, wherever a segment begins."""
    return np.random.default_rng((seed, step)).integers(TRAINED, size=32)


def forward(weights: Weights, x: Array) -> tuple[Array, Array]:
    """The hidden layer and the logits."""
    hidden = np.maximum(x @ weights["first"] + weights["bias"], 0)
    return hidden, hidden @ weights["second"] + weights["shift"]


def loss_and_gradients(weights: Weights, chosen: NDArray[np.int64]) -> tuple[float, Weights]:
    """The cross-entropy of a mini-batch, and its gradients by the chain rule."""
    x, y, rows = PIXELS[chosen], DIGITS[chosen], np.arange(len(chosen))
    hidden, logits = forward(weights, x)
    logits = logits - logits.max(axis=1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[rows, y]))
    probabilities[rows, y] -= 1
    to_logits = probabilities / len(chosen)
    to_hidden = to_logits @ weights["second"].T * (hidden > 0)
    gradients = {"first": x.T @ to_hidden, "bias": to_hidden.sum(axis=0)}
    return loss, gradients | {"second": hidden.T @ to_logits, "shift": to_logits.sum(axis=0)}


def accuracy(weights: Weights) -> float:
    """On the validation set; NaN where the weights are not finite."""
    _, logits = forward(weights, PIXELS[TRAINED:])
    return float(np.mean(logits.argmax(axis=1) == DIGITS[TRAINED:])) if np.isfinite(logits).all() else float("nan")


def train(part: Segment) -> dict[str, Any]:
    """Train a segment from where its parent ended, keep its final state, and return what the finder records."""
    weights = fresh(part.seed)
    velocity, averaged = ({name: np.zeros_like(value) for name, value in weights.items()} for _ in range(2))
    if part.parent:
        with np.load(FOLDER / f"{part.parent}.npz") as kept:
            weights = {name: kept[name] for name in weights}
            velocity = {name: kept[f"velocity_{name}"] for name in weights}
    losses = list[float]()
    for step in range(part.start, part.stop):
        loss, gradients = loss_and_gradients(weights, batch(part.seed, step))
        losses.append(loss)
        if not np.isfinite(loss):  # a result like others: the LR is too large
            return {"value": loss, "losses": losses}
        for name, gradient in gradients.items():
            velocity[name] = MOMENTUM * velocity[name] + gradient
            weights[name] = weights[name] - part.lr_at(step) * velocity[name]
            if step >= part.average_from:
                averaged[name] += weights[name] / (part.stop - part.average_from)
    state: dict[str, Any] = weights | {f"velocity_{name}": value for name, value in velocity.items()}
    np.savez(FOLDER / f"{part.name}.npz", **state)
    return {"value": accuracy(weights), "averaged": accuracy(averaged), "losses": losses}


def main() -> None:
    """Search, then train."""
    samples = len(DIGITS) - TRAINED
    finder = lratlas.Finder(FOLDER, steps=STEPS, direction="maximize", chance=0.1, samples=samples)
    while part := finder.ask():
        with np.errstate(all="ignore"):  # overflows of LRs that are too large
            finder.tell(part, **train(part))
        for file in FOLDER.glob("*.npz"):
            if file.stem not in finder.needed():
                file.unlink()
    print(advice := finder.advice())
    if advice.lr is None:  # no LR differed from the others
        return
    anneal_from = STEPS * 4 // 5 if advice.finish == "anneal" else None
    whole = make_segment(lr=advice.lr, seed=0, start=0, stop=STEPS, parent=None, anneal_from=anneal_from)
    reached = train(whole)
    print(f"Validation accuracy: {reached['value']:.3f}, of the averaged weights {reached['averaged']:.3f}")


if __name__ == "__main__":
    main()
