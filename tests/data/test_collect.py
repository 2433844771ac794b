"""Data as users have them become the same tensors; what would be another training is refused."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

from lratlas.data import collect
from lratlas.data.collect import loader_batch_size, pair_of
from lratlas.data.parts import leaves
from lratlas.errors import TaskError

X = np.arange(24, dtype=np.float64).reshape(8, 3) / 7
Y = np.arange(8) % 2
TENSORS = torch.from_numpy(X).float(), torch.from_numpy(Y)


class Rows(Dataset[Any]):
    """A map-style data set whose samples a function makes."""

    def __init__(self, sample: Callable[[int], Any], count: int = 8) -> None:
        self.sample, self.count = sample, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: int) -> Any:
        if at >= self.count:
            raise IndexError
        return self.sample(at)


class Stream(IterableDataset[Any]):
    def __init__(self, count: int | None) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        at = 0
        while self.count is None or at < self.count:
            yield torch.from_numpy(X[at % 8]).float(), int(Y[at % 8])
            at += 1


def pairs(at: int) -> tuple[Any, int]:
    return X[at].astype(np.float32), int(Y[at])


FORMS: dict[str, Callable[[], Any]] = {
    "arrays": lambda: (X, Y),
    "lists": lambda: (X.tolist(), Y.tolist()),
    "a pair as a list": lambda: [X, Y],
    "pandas": lambda: (pd.DataFrame(X), pd.Series(Y)),
    "pandas with another index": lambda: (pd.DataFrame(X, index=range(100, 108)), pd.Series(Y, index=list("abcdefgh"))),
    "polars": lambda: (pl.DataFrame(X), pl.Series(Y)),
    "a tensor data set": lambda: TensorDataset(*TENSORS),
    "a data set of pairs": lambda: Rows(pairs),
    "a data set of dictionaries": lambda: Rows(lambda at: {"x": X[at].astype(np.float32), "label": int(Y[at])}),
    "a loader": lambda: DataLoader(TensorDataset(*TENSORS), batch_size=3),
    "a loader in batches that it makes itself": lambda: DataLoader(
        Rows(lambda at: (TENSORS[0][2 * at : 2 * at + 2], TENSORS[1][2 * at : 2 * at + 2]), count=4), batch_size=None
    ),
    "a stream that ends": lambda: DataLoader(Stream(8), batch_size=4),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_the_same_data_are_the_same_tensors(form: str) -> None:
    x, y = pair_of("train", FORMS[form]())
    torch.testing.assert_close(x, TENSORS[0])
    assert x.dtype == torch.float32
    assert y.tolist() == TENSORS[1].tolist()


def test_a_shuffled_loader_is_read_in_order_and_draws_nothing() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    x, _ = pair_of("train", DataLoader(TensorDataset(*TENSORS), batch_size=3, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(x, TENSORS[0])


def test_inputs_of_several_parts_keep_their_names_or_places() -> None:
    named, _ = pair_of("train", ({"a": X, "b": Y}, Y))
    assert set(named) == {"a", "b"}
    placed, y = pair_of("train", Rows(lambda at: (X[at], np.float32(at), int(Y[at]))))
    assert [tuple(part.shape) for part in placed] == [(8, 3), (8,)]
    assert y.shape == (8,)
    whole, labels = pair_of("train", Rows(lambda at: {"ids": at, "labels": int(Y[at])}), whole=True)
    assert set(whole) == {"ids", "labels"}
    assert torch.equal(whole["labels"], labels)


def test_memory_is_shared_with_arrays_that_need_no_conversion_and_frames_are_copied() -> None:
    own = X.astype(np.float32)
    x, _ = pair_of("train", (own, Y))
    assert x.data_ptr() == own.ctypes.data


def noisy(at: int) -> tuple[Tensor, int]:
    return torch.from_numpy(X[at]) + torch.rand(3), int(Y[at])


def failing(at: int) -> Any:
    if at == 5:
        raise OSError("file not found")
    return pairs(at)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "neither": (lambda: 3, "must be a pair .inputs, targets., a map-style Dataset or a DataLoader, not int"),
    "text in a frame": (lambda: (pd.DataFrame({"size": [1.0, 2], "colour": ["red", "blue"]}), [0, 1]), "column colour"),
    "text targets": (lambda: (X[:2], pl.Series(["cat", "dog"])), "targets are Series: of type .*encode them first"),
    "another number of rows": (lambda: (X, Y[:5]), r"\(8, 3\) inputs and \(5,\) targets; both need the same n"),
    "NaN": (lambda: (np.where(X > 3, np.nan, X), Y), "inputs contain NaN"),
    "complex": (lambda: (X + 1j, Y), "inputs are complex"),
    "random augmentation in the data set": (lambda: Rows(noisy), "sample 0 differs each time.*augment="),
    "a sampler that repeats": (
        lambda: DataLoader(TensorDataset(*TENSORS), sampler=WeightedRandomSampler([1.0] * 8, 8)),
        "WeightedRandomSampler, but LR Atlas draws batches itself",
    ),
    "samples of several shapes": (lambda: Rows(lambda at: (torch.zeros(at + 1), 0)), "different shapes.*pad them"),
    "a file that is missing": (lambda: Rows(failing), "reading sample 5 failed: OSError: file not found"),
    "text samples": (lambda: Rows(lambda at: ("a sentence", int(Y[at]))), "text must be encoded first"),
    "no targets": (lambda: Rows(lambda at: {"x": X[at], "z": 0}), "exactly one of labels, label"),
    "an empty data set": (lambda: Rows(pairs, count=0), "is empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_said_in_one_sentence(case: str) -> None:
    made, words = REFUSED[case]
    with pytest.raises(TaskError, match=words) as caught:
        pair_of("train", made())
    assert "\n" not in str(caught.value)


def test_a_stream_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "_MOST_SAMPLES", 100)
    with pytest.raises(TaskError, match="has not ended after 100 samples"):
        pair_of("train", Stream(None))


def test_data_larger_than_memory_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "_free_memory", lambda: 2.0**20)
    read: list[int] = []

    def large(at: int) -> tuple[Tensor, int]:
        read.append(at)
        return torch.zeros(2**12), 0

    with pytest.raises(TaskError, match=r"needs about 1\.0 GiB"):
        pair_of("train", Rows(large, count=2**16))
    assert len(set(read)) < 10


def test_the_batch_size_of_a_loader() -> None:
    assert loader_batch_size(DataLoader(TensorDataset(*TENSORS), batch_size=3)) == 3
    assert loader_batch_size((X, Y)) is None
    assert len(leaves(pair_of("train", (X, Y)))) == 2
