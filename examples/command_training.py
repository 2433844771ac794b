"""The training of shell_command.sh: an autoencoder of digits in NumPy, which takes what docs/command.md tells.

In this folder:  sh shell_command.sh
"""

import argparse
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TRAINED = 1_200  # images; the rest is for validation
CODE = 16  # numbers that stand for the 64 pixels
MOMENTUM = 0.9


def parsed() -> argparse.Namespace:
    """What the command says."""
    parser = argparse.ArgumentParser()
    for name in ("--lr", "--final-lr"):
        parser.add_argument(name, type=float, required=True)
    for name in ("--start", "--stop", "--average-from", "--seed"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--state", type=Path, required=True)
    return parser.parse_args()


def fresh(seed: int) -> list[Array]:
    """Encoder and decoder, and the velocity of each."""
    rng = np.random.default_rng(seed)
    encoder, decoder = rng.normal(0, 64**-0.5, (64, CODE)), rng.normal(0, CODE**-0.5, (CODE, 64))
    return [encoder, decoder, np.zeros_like(encoder), np.zeros_like(decoder)]


def loss_and_gradients(x: Array, encoder: Array, decoder: Array) -> tuple[float, Array, Array]:
    """The squared error of an image's reconstruction, on average, and its gradients."""
    code = np.tanh(x @ encoder)
    error = code @ decoder - x
    to_encoder = x.T @ (error @ decoder.T * (1 - code**2))
    return float(np.sum(error**2)) / len(x), 2 * to_encoder / len(x), 2 * code.T @ error / len(x)


def main() -> None:
    """Train from one step to another, keep the state, and print the result."""
    args = parsed()
    with np.load(str(files("lratlas.data") / "digits.npz")) as file:
        images: Array = file["images"].reshape(-1, 64) / 16
    images = images[np.random.default_rng(0).permutation(len(images))]
    images -= images[:TRAINED].mean(axis=0)
    state = fresh(args.seed)
    if args.start > 0:
        with np.load(args.state) as kept:
            state = [kept[name] for name in kept.files]
    averaged = [np.zeros_like(weights) for weights in state[:2]]
    for step in range(args.start, args.stop):
        lr = args.lr + (args.final_lr - args.lr) * (step - args.start) / (args.stop - args.start)
        # The same batches for all LRs, wherever a segment begins.
        batch = np.random.default_rng((args.seed, step)).integers(TRAINED, size=32)
        loss, *gradients = loss_and_gradients(images[batch], *state[:2])
        print(json.dumps({"step": step + 1, "loss": loss}))
        for at, gradient in enumerate(gradients):
            state[2 + at] = MOMENTUM * state[2 + at] + gradient
            state[at] = state[at] - lr * state[2 + at]
            if step >= args.average_from:
                averaged[at] += state[at] / (args.stop - args.average_from)
    np.savez(args.state, *state)
    value, mean = (loss_and_gradients(images[TRAINED:], *weights)[0] for weights in (state[:2], averaged))
    print(json.dumps({"value": value, "averaged": mean}))


if __name__ == "__main__":
    with np.errstate(all="ignore"):  # overflows of LRs that are too large: the losses tell them
        main()
