"""Convert a user's data to tensors: arrays, frames, data sets and loaders, read into memory once and never changed."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, cast

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from lratlas.data.convert import from_any, is_image, is_number, labels_of, tensor_of
from lratlas.data.parts import Parts, each, floats_to, is_parts, leaves, shapes
from lratlas.errors import TaskError, first_line
from lratlas.rng import seed_generators

Pair = tuple[Parts, Parts]
TARGETS = ("labels", "label", "targets", "target", "y")
"""The accepted keys for the targets in a data set of dictionaries."""

_MOST_SAMPLES = 2**20  # of a stream without a length
_SHARE_OF_MEMORY = 0.5
_AGAIN = 32  # number of samples to read twice, to detect a data set that draws random numbers
_SECONDS = 1.0  # time limit for each of the two readings


def pair_of(name: str, given: Any, *, whole: bool = False) -> Pair:
    """Inputs and targets as tensors with a row per sample; floating-point numbers in PyTorch's default dtype.

    Args:
        name: The name of the data, for messages.
        given: A pair of inputs and targets, each an array, tensor or frame, or a tuple or dictionary of them; or a
            dictionary of inputs with the targets under one of `TARGETS`; or a map-style data set or a
            `torch.utils.data.DataLoader`, which is read into memory.
        whole: Whether inputs given as dictionaries keep their targets, for models that compute the loss.

    Raises:
        TaskError: The data have another form, do not fit in memory, or contain unsupported numbers.
    """
    if isinstance(given, DataLoader) or _is_data_set(given):
        x, y = _read_samples(name, given, whole=whole)
    elif isinstance(given, Mapping):
        x, y = _split(name, _tensors(name, given, "part"), whole=whole)
    elif isinstance(given, tuple | list) and len(cast("Sequence[Any]", given)) == 2:
        x, y = (_tensors(name, part, what) for part, what in zip(given, ("inputs", "targets"), strict=True))
    else:
        raise TaskError(
            f"{name} must be a pair (inputs, targets), a dictionary of both, a map-style Dataset or a DataLoader (also"
            f" of a list of samples), not {type(given).__name__}."
        )
    counts = {len(part) if part.dim() else 0 for part in leaves((x, y))}
    if len(counts) != 1 or not max(counts):
        raise TaskError(
            f"{name}: {shapes(x)} inputs and {shapes(y)} targets; both need the same number of rows, at least 1."
        )
    # Float64 arrays are common by accident; models use the default dtype.
    kind = torch.get_default_dtype()
    x, y = floats_to(x, kind), floats_to(each(labels_of, y), kind)
    if whole and isinstance(x, dict):
        named = cast("dict[str, Tensor]", x)
        x = {key: labels_of(part) if key in TARGETS else part for key, part in named.items()}
    for what, parts in (("inputs", x), ("targets", y)):
        for part in leaves(parts):
            _check_numbers(name, what, part)
    return x, y


def loader_batch_size(given: Any) -> int | None:
    """The batch size of a `DataLoader`; None for all other data."""
    return given.batch_size if isinstance(given, DataLoader) else None


def _check_numbers(name: str, what: str, part: Tensor) -> None:
    if part.is_complex():
        raise TaskError(f"{name}: the {what} are complex; they must be real numbers.")
    if part.is_floating_point() and not part.isfinite().all():
        raise TaskError(f"{name}: the {what} contain NaN or infinite values; all must be finite as {part.dtype}.")


def _tensors(name: str, given: Any, what: str) -> Parts:
    if isinstance(given, Mapping):
        named = cast("Mapping[object, Any]", given)
        return {str(key): tensor_of(name, part, f"{what} {key!r}") for key, part in named.items()}
    if isinstance(given, tuple) and given and not is_number(given[0]):
        parts = cast("tuple[Any, ...]", given)
        return tuple(tensor_of(name, part, f"{what}, part {at}") for at, part in enumerate(parts))
    return tensor_of(name, given, what)


def _is_data_set(given: Any) -> bool:
    if isinstance(given, tuple | list | dict | Tensor | np.ndarray | str) or hasattr(given, "to_numpy"):
        return False
    return isinstance(given, IterableDataset) or (hasattr(given, "__getitem__") and hasattr(given, "__len__"))


def _read_samples(name: str, given: Any, *, whole: bool) -> Pair:
    """Read all samples of a data set or loader, in order, without changing the global random generators."""
    with seed_generators(0):  # equal data for equal studies, whatever a data set draws
        parts = [_split(name, batch, whole=whole) for batch in _batches(name, given)]
    try:
        x, y = (_join_batches([part[at] for part in parts]) for at in (0, 1))
    except (RuntimeError, KeyError, IndexError) as error:
        raise TaskError(
            f"{name}: samples or batches have different shapes ({first_line(error)}); pad them to one shape."
        ) from error
    return x, y


def _join_batches(parts: Sequence[Parts]) -> Parts:
    first = parts[0]
    if isinstance(first, dict):
        named = cast("Sequence[dict[str, Tensor]]", parts)
        return {key: torch.cat([part[key] for part in named]) for key in first}
    if isinstance(first, tuple):
        several = cast("Sequence[tuple[Tensor, ...]]", parts)
        return tuple(torch.cat([*each_part]) for each_part in zip(*several, strict=True))
    return torch.cat([*cast("Sequence[Tensor]", parts)])


def _batches(name: str, given: Any) -> Iterator[Any]:
    """Collated batches of all samples, with a progress bar; refuses to continue before memory is full."""
    data, collate, size = given, default_collate, 1
    if isinstance(given, DataLoader):
        loader = cast("DataLoader[Any]", given)
        _check_sampler(name, loader)
        data, collate, size = cast("Any", loader.dataset), cast("Any", loader.collate_fn), loader.batch_size

    def batches_of(items: Iterable[Any]) -> Iterator[Any]:
        return _collate_batches(name, items, collate, size)

    total = None if isinstance(data, IterableDataset) else len(data)
    if total == 0:
        raise TaskError(f"{name}: the data set is empty.")
    if total is not None:
        _check_repeatable(name, data, total, batches_of)
        # A data set that returns batches does not have a known number of samples.
        yield from _limit_batches(name, batches_of(_items(name, data, range(total))), total if size else None)
        return
    first: list[Any] = []
    yield from _limit_batches(name, batches_of(_note_first(_items(name, data), first)), None)
    _check_again(name, data, first, batches_of)


def _note_first(items: Iterable[Any], first: list[Any]) -> Iterator[Any]:
    """Yield the items, and store the first ones."""
    for item in items:
        if len(first) < _AGAIN:
            first.append(item)
        yield item


def _collate_batches(
    name: str, items: Iterable[Any], collate: Callable[[list[Any]], Any], size: int | None
) -> Iterator[Any]:
    """Batches of plain tensors; ``size`` is None if the items already are batches."""
    if size is None:
        yield from (tree_map(partial(_plain, name), item) for item in items)
        return
    held: list[Any] = []
    for item in items:
        held.append(_sample(name, item) if collate is default_collate else item)
        if len(held) == size:
            yield _collate(name, held, collate)
            held = []
    if held:
        yield _collate(name, held, collate)


def _collate(name: str, items: list[Any], collate: Callable[[list[Any]], Any]) -> Any:
    try:
        batch = collate(items)
    except Exception as error:
        raise TaskError(f"{name}: samples cannot be stacked into a batch: {first_line(error)}") from error
    return batch if collate is default_collate else tree_map(partial(_plain, name), batch)


def _sample(name: str, value: Any) -> Any:
    """A sample ready for PyTorch's collation: arrays and lists of numbers become tensors."""
    if isinstance(value, Mapping):
        return {key: _part(name, part) for key, part in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, tuple | list):
        return tuple(_part(name, part) for part in cast("Sequence[Any]", value))
    return _part(name, value)


def _part(name: str, value: Any) -> Any:
    if isinstance(value, list) and all(map(is_number, tree_leaves(value))):
        with suppress(ValueError):  # lists of different lengths
            return _plain(name, np.asarray(value))
    if isinstance(value, tuple | list | Mapping):
        return _sample(name, value)
    is_known = isinstance(value, str | bytes | bool | int | float | Tensor | np.ndarray | np.generic)
    if not is_known and not is_image(value):
        raise TaskError(
            f"{name}: samples must hold numbers, arrays or tensors only, not {type(value).__name__}; convert it in the"
            " data set."
        )
    return _plain(name, value)


def _plain(name: str, value: Any) -> Any:
    """Convert a tensor, array or NumPy number in a sample or batch to a plain tensor; return other values unchanged."""
    is_text = isinstance(value, str | bytes)
    if is_text or not (isinstance(value, Tensor | np.ndarray | np.generic) or is_image(value)):
        return value
    try:
        return from_any(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TaskError(f"{name}: samples hold {type(value).__name__}: {first_line(error).rstrip('.')}.") from error


def _items(name: str, data: Any, places: Iterable[int] | None = None) -> Iterator[Any]:
    """Samples at the given indices, or those of a stream if there are none."""
    at = 0
    try:
        if places is None:
            for item in data:
                yield item
                at += 1
        else:
            for at in places:
                yield data[at]
    except Exception as error:
        raise TaskError(f"{name}: reading sample {at} failed: {type(error).__name__}: {first_line(error)}") from error


def _limit_batches(name: str, batches: Iterable[Any], total: int | None) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import Progress

    free, taken, seen = _SHARE_OF_MEMORY * psutil.virtual_memory().available, 0, 0
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task(f"Reading {name}", total=total)
        for batch in batches:
            parts = leaves(batch)
            taken += sum(part.numel() * part.element_size() for part in parts)
            seen += len(parts[0]) if parts and parts[0].dim() else 1
            _check_memory(name, taken, seen, total, free)
            bar.update(line, completed=seen)
            yield batch


def _check_memory(name: str, taken: int, seen: int, total: int | None, free: float) -> None:
    """Refuse data that need more memory than is free, extrapolated from the samples read so far."""
    expected = taken / seen * total if total else taken
    if expected > free:
        need = f"about {expected / 2**30:.1f} GiB" if total else f"more than {taken / 2**30:.1f} GiB"
        raise TaskError(
            f"{name} needs {need} of memory, and half of the free memory is {free / 2**30:.1f} GiB; data are read into"
            " memory once, so pass only a part, such as a torch.utils.data.Subset."
        )
    if total is None and seen > _MOST_SAMPLES:
        raise TaskError(f"{name} did not end after {_MOST_SAMPLES:,} samples; pass a data set of known length.")


def _check_sampler(name: str, loader: "DataLoader[Any]") -> None:
    """Refuse a loader whose sampler changes the training: training draws its own batches."""
    sampler: Any = loader.sampler
    if loader.batch_size is None and loader.batch_sampler is not None:
        sampler = loader.batch_sampler
    if isinstance(loader.dataset, IterableDataset):
        return
    every = isinstance(sampler, SequentialSampler | RandomSampler) and len(sampler) == len(cast("Any", loader.dataset))
    if every and not getattr(sampler, "replacement", False):
        return
    advice = "pass the data set, or a part of it as torch.utils.data.Subset"
    if isinstance(sampler, WeightedRandomSampler) or getattr(sampler, "replacement", False):
        advice = "repeat samples in the data set instead"
    elif isinstance(sampler, SubsetRandomSampler | RandomSampler | SequentialSampler | DistributedSampler):
        advice = "pass torch.utils.data.Subset for a part of a data set"
    raise TaskError(
        f"{name}: the DataLoader draws its samples with {type(sampler).__name__}, but LR Atlas draws batches"
        f" itself, with every sample once per epoch; {advice}."
    )


Batched = Callable[[Iterable[Any]], Iterator[Any]]


def _check_repeatable(name: str, data: Any, total: int, batches_of: Batched) -> None:
    """Refuse a data set that returns different samples each time: reading it once would freeze its augmentation."""
    places = [*dict.fromkeys(np.linspace(0, total - 1, min(_AGAIN, total)).astype(int).tolist())]
    free = _SHARE_OF_MEMORY * psutil.virtual_memory().available
    first: list[Any] = []
    with seed_generators(0):
        for item in _in_time(_items(name, data, places)):
            first.append(item)
            taken = sum(part.numel() * part.element_size() for part in leaves(item))
            _check_memory(name, taken, 1, total, free)
        batches = [*batches_of(first)]
    with seed_generators(1):
        _compare(name, batches, batches_of(_items(name, data, places[: len(first)])))


def _check_again(name: str, data: Any, first: list[Any], batches_of: Batched) -> None:
    """Compare the first samples of a stream that has been read, if it can be read again."""
    with seed_generators(1):
        second = [*_in_time(islice(_items(name, data), len(first)))]
    if second:
        with seed_generators(0):
            batches = [*batches_of(first[: len(second)])]
        with seed_generators(1):
            _compare(name, batches, batches_of(second))


def _in_time(items: Iterable[Any]) -> Iterator[Any]:
    """Yield at least one item, and stop after a time limit."""
    start = time.monotonic()
    for item in items:
        yield item
        if time.monotonic() - start > _SECONDS:
            return


def _compare(name: str, first: Iterable[Any], second: Iterable[Any]) -> None:
    one, other = ([*map(_values, tree_leaves([*batches]))] for batches in (first, second))
    if len(one) != len(other) or not all(map(_same, one, other)):
        raise TaskError(
            f"{name}: samples differ each time they are read, so a transform draws random numbers; remove this"
            " transform, and pass augmentation as augment= or as part of the model."
        )


def _values(leaf: Any) -> Tensor:
    """The comparable values of a part of a batch, as a tensor."""
    if isinstance(leaf, bool | int | float):
        return torch.as_tensor(leaf)
    return leaf if isinstance(leaf, Tensor) else torch.zeros(0)


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _split(name: str, batch: Any, *, whole: bool) -> Pair:
    """Inputs and targets of a collated batch: a pair, a longer tuple whose last part is the target, or a dictionary."""
    if isinstance(batch, Mapping):
        named = dict(cast("Mapping[str, Any]", batch))
        keys = [key for key in TARGETS if key in named]
        if len(keys) != 1:
            raise TaskError(
                f"{name}: samples are dictionaries with {', '.join(map(str, named))}; the targets must have"
                f" exactly one of the names {', '.join(TARGETS)}."
            )
        y = named[keys[0]]
        x: Any = named if whole else {key: part for key, part in named.items() if key != keys[0]}
        if len(x) == 1 and not whole:
            x = next(iter(x.values()))
    elif isinstance(batch, tuple | list) and len(cast("Sequence[Any]", batch)) >= 2:
        *parts, y = cast("Sequence[Any]", batch)
        x = parts[0] if len(parts) == 1 else tuple(parts)
    else:
        raise TaskError(
            f"{name}: a sample must be a pair (inputs, targets) or a dictionary, not {type(batch).__name__}."
        )
    if isinstance(x, list):
        x = tuple(cast("list[Any]", x))
    if isinstance(y, list):
        y = tuple(cast("list[Any]", y))
    if not is_parts(x) or not is_parts(y):
        raise TaskError(f"{name}: samples must hold numbers, arrays or tensors only; text must be encoded first.")
    return each(torch.Tensor.detach, x), each(torch.Tensor.detach, y)
