"""The data of the problems as tensors, split once and for all: images, digits, diamonds and a text.

Images are found as the package finds them (`lratlas.data.sources`). The table of diamonds comes with plotnine, the
digits with scikit-learn, and the text, the topics of Python's interactive help, with Python itself.
"""

from functools import cache
from importlib.resources import files
from itertools import pairwise
from pydoc_data.topics import topics
from typing import cast

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import avg_pool2d

from benchmarks.advice.problem import Pair, Split
from lratlas.data.images import ImageData, statistics
from lratlas.data.readers import read_images
from lratlas.rng import stream


def images(
    source: str,
    *,
    train: int,
    validation: int,
    test: int,
    shrunk: bool = False,
    labels: tuple[int, ...] | None = None,
    wrong: float = 0.0,
    wrong_validation: bool = False,
    as_bytes: bool = False,
) -> Split:
    """Images of a data set, drawn at random; training and validation from its training set.

    Args:
        source: Name of the data set.
        train: Training images.
        validation: Validation images.
        test: Test images.
        shrunk: Whether to halve height and width, by means of 2x2 pixels.
        labels: The classes to take, relabelled from 0 in this order; None for all.
        wrong: Share of the training labels that are replaced by another class.
        wrong_validation: Whether that goes for the validation labels too.
        as_bytes: Whether to leave images as bytes; else they are normalised.
    """
    data = read_once(source)
    learn, held = _rows(data.train, train + validation, labels, "train"), _rows(data.test, test, labels, "test")
    x, y = (part[:train] for part in learn)
    held_x, held_y = (part[train:] for part in learn)
    classes = len(labels or data.classes)
    y = _corrupted(y, classes, wrong, "train")
    held_y = _corrupted(held_y, classes, wrong if wrong_validation else 0.0, "validation")
    mean, deviation = (value.float()[:, None, None] for value in statistics(data.train[0]))

    def seen(part: Tensor) -> Tensor:
        small = avg_pool2d(part.float(), 2) if shrunk else part.float()
        return small.round().byte() if as_bytes else (small / 255 - mean) / deviation

    return Split(train=(seen(x), y), validation=(seen(held_x), held_y), test=(seen(held[0]), held[1]))


def autoencoding(split: Split) -> Split:
    """The same images, flattened to values in [0, 1], as inputs and targets."""

    def itself(pair: Pair) -> Pair:
        values = pair[0].flatten(1).float() / 255
        return values, values

    return Split(train=itself(split.train), validation=itself(split.validation), test=itself(split.test))


def digits(*, train: int, validation: int) -> Split:
    """The 1,797 handwritten digits of 8x8 pixels, in [0, 1]; the rest are the test set."""
    x, y = cast("tuple[NDArray[np.float64], NDArray[np.int64]]", load_digits(return_X_y=True))
    return _cut(torch.from_numpy(x / 16).float(), torch.from_numpy(y), train=train, validation=validation)


def diamonds(target: str, *, train: int, validation: int, test: int) -> Split:
    """Diamonds of which the ``cut`` (five classes) or the ``price`` (its logarithm, standardised) is the target.

    Inputs are the logarithms of weight and price (the price where it is not the target), the proportions, and the
    grades of colour, clarity and cut (where it is not the target) as whole numbers; all standardised.
    """
    table = _diamonds()
    lengths = [pl.col(name).log1p() for name in ("carat", "x", "y", "z", "price")]
    grades = [pl.col(name).cast(pl.Int64) for name in ("cut", "color", "clarity")]
    chosen = table.select(*lengths, "depth", "table", *grades)
    values = torch.from_numpy(chosen.drop(target).to_numpy().copy()).float()
    wanted = torch.from_numpy(chosen[target].to_numpy().copy())
    split = _cut(_standardised(values, train), wanted, train=train, validation=validation, test=test)
    if target == "cut":
        return split
    price = _standardised(wanted[:, None].float(), train)
    return _cut(_standardised(values, train), price, train=train, validation=validation, test=test)


def text(*, length: int, train: int, validation: int, test: int) -> tuple[Split, int]:
    """Windows of ``length`` characters of English technical text, each with the characters that follow.

    The three parts come from different topics, so that none overlaps another.

    Returns:
        The split, with windows in random order, and the number of different characters.
    """
    names = sorted(topics)
    order = stream(0, "advice/text").permutation(len(names))
    written = "\n\n".join(topics[names[number]] for number in order)
    known = sorted(set(written))
    places = {character: number for number, character in enumerate(known)}
    tokens = torch.tensor([places[character] for character in written])
    borders = [0, int(0.8 * len(tokens)), int(0.9 * len(tokens)), len(tokens)]
    parts = [tokens[low:high] for low, high in pairwise(borders)]
    windows = [
        _windows(part, length, count, purpose)
        for part, count, purpose in zip(parts, (train, validation, test), ("train", "validation", "test"), strict=True)
    ]
    return Split(train=windows[0], validation=windows[1], test=windows[2]), len(known)


@cache
def read_once(source: str) -> ImageData:
    return read_images(source)


@cache
def _diamonds() -> pl.DataFrame:
    grades = {
        "cut": ["Fair", "Good", "Very Good", "Premium", "Ideal"],
        "color": ["J", "I", "H", "G", "F", "E", "D"],
        "clarity": ["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"],
    }
    with (files("plotnine") / "data" / "diamonds.csv").open("rb") as source:
        table = pl.read_csv(source.read())
    ranked = [
        pl.col(name).replace_strict(dict(zip(each, range(len(each)), strict=True))) for name, each in grades.items()
    ]
    shuffled = stream(0, "advice/diamonds").permutation(len(table))
    return table.with_columns(ranked)[shuffled]


def _rows(pair: Pair, count: int, labels: tuple[int, ...] | None, purpose: str) -> Pair:
    """The first ``count`` images of a random order, of these classes."""
    order = torch.from_numpy(stream(0, f"advice/{purpose}").permutation(len(pair[1])))
    if labels is None:
        return pair[0][order[:count]], pair[1][order[:count]]
    wanted = torch.tensor(labels)
    rows = order[torch.isin(pair[1][order], wanted)][:count]
    return pair[0][rows], (pair[1][rows][:, None] == wanted).int().argmax(1)


def _corrupted(labels: Tensor, classes: int, share: float, purpose: str) -> Tensor:
    generator = stream(0, f"advice/wrong/{purpose}")
    chosen = torch.from_numpy(generator.permutation(len(labels))[: round(share * len(labels))])
    shifts = torch.from_numpy(generator.integers(1, classes, size=len(chosen)))
    changed = labels.clone()
    changed[chosen] = (labels[chosen] + shifts) % classes
    return changed


def _cut(x: Tensor, y: Tensor, *, train: int, validation: int, test: int | None = None) -> Split:
    """Rows in a random order, cut in three."""
    order = torch.from_numpy(stream(0, "advice/rows").permutation(len(x)))
    last = None if test is None else train + validation + test
    parts = order[:train], order[train : train + validation], order[train + validation : last]
    first, second, third = ((x[rows], y[rows]) for rows in parts)
    return Split(train=first, validation=second, test=third)


def _standardised(values: Tensor, train: int) -> Tensor:
    """Columns with the mean 0 and the deviation 1 over the rows that `_cut` trains on."""
    rows = torch.from_numpy(stream(0, "advice/rows").permutation(len(values))[:train])
    return (values - values[rows].mean(0)) / values[rows].std(0)


def _windows(tokens: Tensor, length: int, count: int, purpose: str) -> Pair:
    starts = torch.from_numpy(stream(0, f"advice/windows/{purpose}").integers(0, len(tokens) - length, size=count))
    cut = tokens[starts[:, None] + torch.arange(length + 1)]
    return cut[:, :-1].contiguous(), cut[:, 1:].contiguous()
