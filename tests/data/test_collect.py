"""Data as users have them become the same tensors; what would be another training is refused."""

import random
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

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
    "a dictionary": lambda: {"x": X, "labels": Y},
    "a dictionary of frames": lambda: {"target": pl.Series(Y), "features": pd.DataFrame(X)},
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


def noisy_batch(items: list[Any]) -> tuple[Tensor, Tensor]:
    x, y = (torch.stack(parts) for parts in zip(*items, strict=True))
    return x + np.random.default_rng().random(), y


class Noisy(Stream):
    def __iter__(self) -> Iterator[Any]:
        return ((x + random.random(), y) for x, y in super().__iter__())


def failing(at: int) -> Any:
    if at == 5:
        raise OSError("file not found")
    return pairs(at)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "neither": (lambda: 3, "must be a pair .inputs, targets., a dictionary of both, .* or a DataLoader .* not int"),
    "text in a frame": (lambda: (pd.DataFrame({"size": [1.0, 2], "colour": ["red", "blue"]}), [0, 1]), "column colour"),
    "text targets": (lambda: (X[:2], pl.Series(["cat", "dog"])), "targets are Series: not numbers; encode them first"),
    "another number of rows": (
        lambda: (X, Y[:5]),
        r"\(8, 3\) inputs and \(5,\) targets; both need the same number of rows",
    ),
    "NaN": (lambda: (np.where(X > 3, np.nan, X), Y), "inputs contain NaN"),
    "complex": (lambda: (X + 1j, Y), "inputs are complex"),
    "random augmentation in the data set": (lambda: Rows(noisy), "samples differ each time.*augment="),
    "a sampler that repeats": (
        lambda: DataLoader(TensorDataset(*TENSORS), sampler=WeightedRandomSampler([1.0] * 8, 8)),
        "WeightedRandomSampler, but LR Atlas draws batches itself.*repeat samples in the data set instead",
    ),
    "a sampler that draws again and again": (
        lambda: DataLoader(TensorDataset(*TENSORS), sampler=RandomSampler(TENSORS[0], replacement=True)),
        "RandomSampler.*repeat samples in the data set instead",
    ),
    "a sampler of some samples": (
        lambda: DataLoader(TensorDataset(*TENSORS), sampler=RandomSampler(TENSORS[0], num_samples=4)),
        "RandomSampler.*pass torch.utils.data.Subset",
    ),
    "a sampler of the first samples": (
        lambda: DataLoader(TensorDataset(*TENSORS), sampler=SequentialSampler(TENSORS[0][:4])),
        "SequentialSampler.*pass torch.utils.data.Subset",
    ),
    "a sampler of a subset": (
        lambda: DataLoader(TensorDataset(*TENSORS), sampler=SubsetRandomSampler([1, 2])),
        "SubsetRandomSampler.*pass torch.utils.data.Subset",
    ),
    "a sampler of a share": (
        lambda: DataLoader(TensorDataset(*TENSORS), sampler=DistributedSampler(Rows(pairs), num_replicas=2, rank=0)),
        "DistributedSampler.*pass torch.utils.data.Subset",
    ),
    "a random collate function": (
        lambda: DataLoader(TensorDataset(*TENSORS), batch_size=4, collate_fn=noisy_batch),
        "samples differ each time",
    ),
    "a stream that augments": (lambda: DataLoader(Noisy(8), batch_size=4), "samples differ each time"),
    "batches that augment": (
        lambda: DataLoader(Rows(lambda _: (torch.rand(2, 3), torch.tensor([0, 1]))), batch_size=None),
        "samples differ each time",
    ),
    "NaN in a data set": (lambda: Rows(lambda at: (np.full(3, np.nan), int(Y[at]))), "inputs contain NaN"),
    "numbers too large for float32": (lambda: (X * 1e300, Y), "infinite values; all must be finite as torch.float32"),
    "a structured array": (lambda: (np.zeros(8, dtype=[("a", "f4")]), Y), "a structured array; pass a dictionary"),
    "objects that are no numbers": (lambda: (X, np.array(["a"] * 8, dtype=object)), "not numbers; encode them"),
    "missing objects": (lambda: (X, np.array([1, None] * 4, dtype=object)), "missing values"),
    "masked values": (lambda: (np.ma.masked_array(X, X > 2), Y), "masked; fill"),
    "text": (lambda: (X.tolist(), ["a"] * 8), "targets are list: text; encode it first"),
    "lists of several lengths": (lambda: ([[1.0, 2], [3.0]], [0, 1]), "items of different shapes; pad them"),
    "tensors of several lengths": (lambda: ([torch.ones(2), torch.ones(3)], [0, 1]), "different shapes.*pad them"),
    "arrays of several lengths": (lambda: ([np.ones(2), np.ones(3)], [0, 1]), "different shapes; pad them"),
    "dates": (lambda: (pd.DataFrame({"day": pd.date_range("2020", periods=8)}), Y), "column day: dates"),
    "dates in Polars": (lambda: (pl.DataFrame({"day": [date(2020, 1, 1)] * 8}), Y), "column day: dates"),
    "categories": (lambda: (X, pd.Series(["a", "b"] * 4, dtype="category")), "targets are Series: not numbers"),
    "categories in Polars": (lambda: (X, pl.Series(["a", "b"] * 4, dtype=pl.Categorical)), "not numbers; encode"),
    "missing integers": (lambda: (X, pd.Series([1, None] * 4, dtype="Int64")), "targets contain NaN|missing values"),
    "missing integers in Polars": (lambda: (pl.DataFrame({"a": [1, None] * 4}), Y), "inputs contain NaN"),
    "missing booleans in Polars": (lambda: (pl.DataFrame({"a": [True, None] * 4}), Y), "column a: missing values"),
    "images": (lambda: Rows(lambda at: (Image.new("RGB", (4, 4)), int(Y[at]))), "PIL image; convert images to tensors"),
    "a list of images": (lambda: ([Image.new("L", (4, 4))] * 8, Y), "PIL image; convert images to tensors"),
    "nothing in a sample": (lambda: Rows(lambda at: (X[at], None)), "numbers, arrays or tensors only, not NoneType"),
    "a sparse tensor": (lambda: (TENSORS[0].to_sparse(), Y), "sparse; pass .to_dense"),
    "sparse samples": (lambda: Rows(lambda at: (TENSORS[0][at].to_sparse(), 0)), "sparse; pass .to_dense"),
    "a tensor without values": (lambda: (torch.empty(8, 3, device="meta"), Y), "on the device meta"),
    "samples without values": (lambda: Rows(lambda _: (torch.empty(3, device="meta"), 0)), "on the device meta"),
    "very large unsigned numbers": (lambda: (X, Y.astype("u8") + 2**63), r"unsigned numbers of 2\^63 or more"),
    "a pair of data sets": (
        lambda: (TensorDataset(*TENSORS), TensorDataset(*TENSORS)),
        "inputs are TensorDataset: a data",
    ),
    "samples of several shapes": (lambda: Rows(lambda at: (torch.zeros(at + 1), 0)), "different shapes.*pad them"),
    "a file that is missing": (lambda: Rows(failing), "reading sample 5 failed: OSError: file not found"),
    "text samples": (lambda: Rows(lambda at: ("a sentence", int(Y[at]))), "text must be encoded first"),
    "no targets": (lambda: Rows(lambda at: {"x": X[at], "z": 0}), "exactly one of the names labels, label"),
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
    with pytest.raises(TaskError, match="did not end after 100 samples"):
        pair_of("train", Stream(None))


def test_data_larger_than_memory_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**20))
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


RANDOM: dict[str, Callable[[], float]] = {
    "PyTorch": lambda: float(torch.rand(())),
    "NumPy": lambda: float(np.random.random()),  # noqa: NPY002 - what transforms often draw from
    "Python": random.random,
}


@pytest.mark.parametrize("source", RANDOM)
@pytest.mark.parametrize("seed", range(3))
def test_a_flip_that_is_rare_is_found(source: str, seed: int) -> None:
    torch.manual_seed(seed)
    draw = RANDOM[source]
    flips = Rows(lambda at: (X[at % 8][::-1] if draw() < 0.1 else X[at % 8], 0), count=1000)
    with pytest.raises(TaskError, match="samples differ each time"):
        pair_of("train", flips)


def test_what_a_data_set_draws_unnoticed_is_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "_AGAIN", 1)
    late = Rows(lambda at: (TENSORS[0][at] + (torch.rand(3) if at else 0), int(Y[at])))
    one, other = (pair_of("train", late)[0] for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, TENSORS[0])


def test_slow_samples_are_checked_for_a_short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "_SECONDS", 0.0)
    read: list[int] = []

    def noted(at: int) -> Any:
        read.append(at)
        return pairs(at)

    pair_of("train", Rows(noted))
    assert read == [0, 0, *range(8)]


class Once(IterableDataset[Any]):
    """A stream that can be read a single time."""

    def __init__(self) -> None:
        self.items = iter(zip(*TENSORS, strict=True))

    def __iter__(self) -> Iterator[Any]:
        yield from self.items


def test_a_stream_that_can_be_read_a_single_time_loses_nothing() -> None:
    x, y = pair_of("train", Once())
    assert torch.equal(x, TENSORS[0])
    assert y.tolist() == Y.tolist()


def read_only(array: Any) -> Any:
    array = array.copy()
    array.flags.writeable = False
    return array


def mapped(folder: Path, mode: Any) -> Any:
    np.save(folder / "x.npy", X.astype(np.float32))
    return np.load(folder / "x.npy", mmap_mode=mode)


WHOLE = np.arange(24).reshape(8, 3)
KINDS: dict[str, Callable[[Path], Any]] = {
    **{
        kind: lambda _, kind=kind: WHOLE.astype(kind)
        for kind in ["f2", "f8", "g", ">f4", "i1", "i2", ">i4", "u1", "u2", "u4", "u8"]
    },
    "objects": lambda _: WHOLE.astype(object),
    "rows as objects": lambda _: np.array([*WHOLE, None], dtype=object)[:-1],
    "read-only": lambda _: read_only(WHOLE),
    "backwards": lambda _: WHOLE[::-1].copy()[::-1],
    "every second": lambda _: np.repeat(WHOLE, 2, axis=1)[:, ::2],
    "columns first": lambda _: np.asfortranarray(WHOLE),
    "a field of a structure": lambda _: np.array([*map(tuple, WHOLE)], dtype="i4,i4,i4").view(("i4", 3)),
    "nothing masked": lambda _: np.ma.masked_array(WHOLE, WHOLE > 100),
    "a list of arrays": lambda _: list(WHOLE),
    "a list of tensors": lambda _: [*torch.from_numpy(WHOLE)],
    "nullable": lambda _: pd.DataFrame(WHOLE).astype("Int64"),
    "nullable and not": lambda _: pd.DataFrame(WHOLE).astype({0: "Int64", 1: "Float32"}),
    "columns of the same name": lambda _: pd.DataFrame(WHOLE, columns=list("aab")),
    "columns of objects": lambda _: pd.DataFrame(WHOLE.astype(object)),
    "arrays in Polars": lambda _: pl.Series(WHOLE.tolist(), dtype=pl.Array(pl.Float32, 3)),
    "bfloat16": lambda _: torch.from_numpy(WHOLE).bfloat16(),
    "float8": lambda _: torch.from_numpy(WHOLE % 8).to(torch.float8_e4m3fn),
    "with a gradient": lambda _: torch.from_numpy(WHOLE).float().requires_grad_(),
    "a parameter": lambda _: torch.nn.Parameter(torch.from_numpy(WHOLE).float()),
    "uint16 of PyTorch": lambda _: torch.from_numpy(WHOLE).to(torch.uint16),
}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_every_kind_become_tensors_that_can_be_computed_with(kind: str, tmp_path: Path) -> None:
    given = KINDS[kind](tmp_path)
    x, _ = pair_of("train", (given, Y))
    assert type(x) is Tensor
    assert not x.requires_grad
    assert x.tolist() == (WHOLE % 8 if kind == "float8" else WHOLE).tolist()
    assert x.dtype not in {torch.uint16, torch.uint32, torch.uint64, torch.float16, torch.float64}
    if isinstance(given, np.ndarray | Tensor):
        again, _ = pair_of("train", Rows(lambda at: (given[at], int(Y[at]))))
        assert again.tolist() == x.tolist()


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_mapped_files_are_read(mode: str, tmp_path: Path) -> None:
    x, _ = pair_of("train", (mapped(tmp_path, mode), read_only(Y)))
    torch.testing.assert_close(x, TENSORS[0])


LABELS: dict[str, Callable[[], Any]] = {
    **{kind: lambda kind=kind: Y.astype(kind) for kind in ["?", "i1", "u1", "u2", "u4", "u8", "i4", ">i8", "O"]},
    "booleans in a list": lambda: Y.astype(bool).tolist(),
    "tensors in a list": lambda: [*torch.from_numpy(Y)],
    "a tensor of booleans": lambda: torch.from_numpy(Y).bool(),
    "pandas' booleans": lambda: pd.Series(Y.astype(bool)),
    "nullable booleans": lambda: pd.Series(Y.astype(bool), dtype="boolean"),
    "nullable integers": lambda: pd.Series(Y, dtype="Int64"),
    "categories of integers": lambda: pd.Series(Y, dtype="category"),
    "Polars' booleans": lambda: pl.Series(Y.astype(bool)),
    "a tuple": lambda: tuple(Y),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_kind_are_integers(kind: str) -> None:
    _, y = pair_of("train", (X, LABELS[kind]()))
    assert y.dtype == torch.int64
    assert y.tolist() == Y.tolist()


def test_booleans_are_labels_in_a_data_set_and_masks_of_bytes_stay_bytes() -> None:
    named, y = pair_of("train", Rows(lambda at: {"x": X[at], "labels": bool(Y[at])}), whole=True)
    assert y.tolist() == named["labels"].tolist() == Y.tolist()
    assert y.dtype == named["labels"].dtype == torch.int64
    assert pair_of("train", (X, np.zeros((8, 2, 2), dtype=np.uint8)))[1].dtype == torch.uint8


def test_columns_of_booleans_are_features() -> None:
    x, _ = pair_of("train", (pd.get_dummies(pd.Series(list("abcabcab"))), Y))
    assert x.dtype == torch.float32
    assert x.sum(1).tolist() == [1.0] * 8
    mixed, _ = pair_of("train", (pl.DataFrame({"a": Y.astype(bool), "b": X[:, 0]}), Y))
    torch.testing.assert_close(mixed, torch.stack([TENSORS[1].float(), TENSORS[0][:, 0]], 1))
    assert pair_of("train", (Y.astype(bool), Y))[0].dtype == torch.bool  # such as a mask


def test_lists_of_numbers_in_samples_are_one_input() -> None:
    x, _ = pair_of("train", Rows(lambda at: {"ids": WHOLE[at].tolist(), "label": int(Y[at])}))
    assert x.tolist() == WHOLE.tolist()
    nested, _ = pair_of("train", Rows(lambda at: (WHOLE[at].reshape(1, 3).tolist(), int(Y[at]))))
    assert nested.shape == (8, 1, 3)
    scalars, y = pair_of("train", Rows(lambda at: [float(at), int(Y[at])]))
    assert scalars.shape == y.shape == (8,)


def test_a_collate_function_may_make_arrays() -> None:
    def joined(items: list[Any]) -> dict[str, Any]:
        return {"x": np.stack([x for x, _ in items])[::-1][::-1], "label": np.array([y for _, y in items], dtype="u2")}

    x, y = pair_of("train", DataLoader(Rows(pairs), batch_size=4, collate_fn=joined))
    torch.testing.assert_close(x, TENSORS[0])
    assert y.tolist() == Y.tolist()
