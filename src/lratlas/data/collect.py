"""A user's data as tensors: arrays, frames, data sets and loaders, read into memory once and never changed."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, default_collate

from lratlas.data.parts import Parts, each, floats_to, is_parts, leaves, shapes
from lratlas.errors import TaskError, first_line
from lratlas.streams import generators_kept

Pair = tuple[Parts, Parts]
TARGETS = ("labels", "label", "targets", "target", "y")
"""The keys under which a data set of dictionaries may hold its targets."""

_MOST_SAMPLES = 2**20  # of a stream that does not say how long it is
_SHARE_OF_MEMORY = 0.5
_AGAIN = 4  # samples read twice, to see whether a data set draws random numbers


def pair_of(name: str, given: Any, *, whole: bool = False) -> Pair:
    """Inputs and targets as tensors with a row per sample; floating-point numbers in PyTorch's default format.

    Args:
        name: What the data are, for messages.
        given: A pair of inputs and targets, each an array, tensor or frame, or a tuple or dictionary of them; or a
            map-style data set or a `torch.utils.data.DataLoader`, which is read into memory.
        whole: Whether inputs given as dictionaries keep their targets too, for models that compute the loss.

    Raises:
        TaskError: The data are none of these, do not fit into memory, or their numbers cannot be used.
    """
    if isinstance(given, DataLoader) or _is_data_set(given):
        x, y = _read(name, given, whole=whole)
    elif isinstance(given, tuple | list) and len(cast("Sequence[Any]", given)) == 2:
        x, y = (_tensors(name, part, what) for part, what in zip(given, ("inputs", "targets"), strict=True))
    else:
        raise TaskError(
            f"{name} must be a pair (inputs, targets), a map-style Dataset or a DataLoader, not {type(given).__name__}."
        )
    counts = {len(part) if part.dim() else 0 for part in leaves((x, y))}
    if len(counts) != 1 or not max(counts):
        raise TaskError(f"{name}: {shapes(x)} inputs and {shapes(y)} targets; both need the same n > 0 rows.")
    for what, parts in (("inputs", x), ("targets", y)):
        for part in leaves(parts):
            _check_numbers(name, what, part)
    # Float64 arrays are common where float32 is meant; models are made in the default type.
    kind = torch.get_default_dtype()
    return floats_to(x, kind), floats_to(y, kind)


def loader_batch_size(given: Any) -> int | None:
    """The batch size of a `DataLoader`; None for all other data."""
    return given.batch_size if isinstance(given, DataLoader) else None


def _check_numbers(name: str, what: str, part: Tensor) -> None:
    if part.is_complex():
        raise TaskError(f"{name}: the {what} are complex; they must be real numbers.")
    if part.is_floating_point() and not part.isfinite().all():
        raise TaskError(f"{name}: the {what} contain NaN or infinite values; all must be finite.")


def _tensors(name: str, given: Any, what: str) -> Parts:
    if isinstance(given, Mapping):
        return {str(key): _tensor(name, part, f"{what} {key!r}") for key, part in given.items()}
    if isinstance(given, tuple) and given and not np.isscalar(given[0]):
        parts = cast("tuple[Any, ...]", given)
        return tuple(_tensor(name, part, f"{what}, part {at}") for at, part in enumerate(parts))
    return _tensor(name, given, what)


def _tensor(name: str, given: Any, what: str) -> Tensor:
    """A tensor on the host that may share its memory with what was given, which nobody writes to."""
    if isinstance(given, Tensor):
        return given.detach().cpu()
    try:
        return torch.as_tensor(_array(given) if hasattr(given, "to_numpy") else given).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TaskError(
            f"{name} must hold tensors, arrays or frames of numbers; the {what} are {type(given).__name__}:"
            f" {first_line(error)}."
        ) from error


def _array(frame: Any) -> Any:
    """The numbers of a pandas or Polars frame or series, [n, columns] or [n]."""
    columns = cast("list[str]", list(getattr(frame, "columns", ())))
    odd = [str(column) for column in columns if not _is_number(np.asarray(frame[column].to_numpy()).dtype)]
    if odd:
        raise ValueError(f"not numbers: column {', '.join(odd[:3])}; encode them first")
    array = np.asarray(frame.to_numpy())
    if not _is_number(array.dtype):
        raise ValueError(f"of type {array.dtype}, not numbers; encode them first")
    return np.ascontiguousarray(array).copy() if not array.flags.writeable else np.ascontiguousarray(array)


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biuf"


def _is_data_set(given: Any) -> bool:
    if isinstance(given, tuple | list | dict | Tensor | np.ndarray | str) or hasattr(given, "to_numpy"):
        return False
    return isinstance(given, IterableDataset) or (hasattr(given, "__getitem__") and hasattr(given, "__len__"))


def _read(name: str, given: Any, *, whole: bool) -> Pair:
    """All samples of a data set or loader, in order; drawn from without touching a global generator."""
    with generators_kept():
        batches = list(_batches(name, given))
    parts = [_split(name, batch, whole=whole) for batch in batches]
    try:
        x, y = (_joined([part[at] for part in parts]) for at in (0, 1))
    except (RuntimeError, KeyError, IndexError) as error:
        raise TaskError(
            f"{name}: samples or batches have different shapes ({first_line(error)}); pad them to one shape."
        ) from error
    return x, y


def _joined(parts: Sequence[Parts]) -> Parts:
    first = parts[0]
    if isinstance(first, dict):
        named = cast("Sequence[dict[str, Tensor]]", parts)
        return {key: torch.cat([part[key] for part in named]) for key in first}
    if isinstance(first, tuple):
        several = cast("Sequence[tuple[Tensor, ...]]", parts)
        return tuple(torch.cat([*each_part]) for each_part in zip(*several, strict=True))
    return torch.cat([*cast("Sequence[Tensor]", parts)])


def _batches(name: str, given: Any) -> Iterator[Any]:
    """Collated batches of all samples, with a progress bar, and a refusal before memory is full."""
    collate: Callable[[list[Any]], Any] = default_collate
    size = 1
    if isinstance(given, DataLoader):
        loader = cast("DataLoader[Any]", given)
        _check_sampler(name, loader)
        data, collate, size = cast("Any", loader.dataset), cast("Any", loader.collate_fn), loader.batch_size or 1
        if loader.batch_size is None:  # the data set makes its batches itself
            yield from _bounded(name, (tree_map(_with_rows, item) for item in _items(name, data)), None)
            return
    else:
        data = given
    total = None if isinstance(data, IterableDataset) else len(data)
    if total == 0:
        raise TaskError(f"{name}: the data set is empty.")
    if total is not None:
        _check_repeatable(name, data, total)
    yield from _bounded(name, _collated(name, _items(name, data), collate, size), total)


def _collated(name: str, items: Iterable[Any], collate: Callable[[list[Any]], Any], size: int) -> Iterator[Any]:
    held: list[Any] = []
    for item in items:
        held.append(item)
        if len(held) == size:
            yield _collate(name, held, collate)
            held = []
    if held:
        yield _collate(name, held, collate)


def _collate(name: str, items: list[Any], collate: Callable[[list[Any]], Any]) -> Any:
    try:
        return collate(items)
    except Exception as error:
        raise TaskError(f"{name}: samples cannot be put together into a batch: {first_line(error)}") from error


def _items(name: str, data: Any) -> Iterator[Any]:
    streamed = isinstance(data, IterableDataset)
    items = iter(data) if streamed else (data[place] for place in range(len(data)))
    at = 0
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except Exception as error:
            why = f"{type(error).__name__}: {first_line(error)}"
            raise TaskError(f"{name}: reading sample {at} failed: {why}") from error
        yield item
        at += 1


def _bounded(name: str, batches: Iterable[Any], total: int | None) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import Progress

    free, taken, seen = _SHARE_OF_MEMORY * _free_memory(), 0, 0
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
    """Refuse data that need more memory than there is, as far as the samples read so far tell."""
    expected = taken / seen * total if total else taken
    if expected > free:
        need = f"about {expected / 2**30:.1f} GiB" if total else f"more than {taken / 2**30:.1f} GiB"
        raise TaskError(
            f"{name} needs {need} of memory, and half of what is free is {free / 2**30:.1f} GiB; data are read"
            " into memory once, so pass a part of them, such as torch.utils.data.Subset."
        )
    if total is None and seen > _MOST_SAMPLES:
        raise TaskError(f"{name} has not ended after {_MOST_SAMPLES:,} samples; pass a data set of known length.")


def _free_memory() -> float:
    """Bytes of memory that are free or can be freed; infinite where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * float(line.split()[1])
    return float("inf")


def _check_sampler(name: str, loader: "DataLoader[Any]") -> None:
    """Training draws its own batches: a loader whose sampler does anything else is another training."""
    sampler = loader.sampler
    if loader.batch_size is None and loader.batch_sampler is not None:
        sampler = loader.batch_sampler
    if isinstance(loader.dataset, IterableDataset) or isinstance(sampler, SequentialSampler):
        return
    if isinstance(sampler, RandomSampler) and not sampler.replacement and sampler.num_samples == len(sampler):
        return
    raise TaskError(
        f"{name}: the DataLoader draws its samples with {type(sampler).__name__}, but LR Atlas draws batches itself,"
        " every sample once an epoch; pass a data set in which samples stand as often as they are to be drawn."
    )


def _check_repeatable(name: str, data: Any, total: int) -> None:
    """Refuse a data set that gives a sample differently each time: read once, its augmentation would be frozen."""
    for at in {*range(min(_AGAIN, total)), total - 1}:
        first, second = (next(iter(_items(name, _One(data, at)))) for _ in range(2))
        pairs = zip(leaves(tree_map(_numbers, first)), leaves(tree_map(_numbers, second)), strict=False)
        if any(one.shape != other.shape or not torch.equal(one, other) for one, other in pairs):
            raise TaskError(
                f"{name}: sample {at} differs each time it is read, so its transform draws random numbers; pass the"
                " samples without it, and the augmentation as augment= or as part of the model."
            )


class _One:
    """One sample of a data set, as a data set."""

    def __init__(self, data: Any, at: int) -> None:
        self._data, self._at = data, at

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> Any:
        return self._data[self._at]


def _numbers(value: Any) -> Any:
    """What of a sample can be compared, as a tensor."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray | int | float | np.generic):
        return torch.as_tensor(value)
    return value


def _with_rows(value: Any) -> Any:
    return torch.as_tensor(value) if isinstance(value, np.ndarray) else value


def _split(name: str, batch: Any, *, whole: bool) -> Pair:
    """Inputs and targets of a collated batch: a pair, a longer tuple whose last part is the target, or a dictionary."""
    if isinstance(batch, Mapping):
        named = dict(cast("Mapping[str, Any]", batch))
        keys = [key for key in TARGETS if key in named]
        if len(keys) != 1:
            raise TaskError(
                f"{name}: samples are dictionaries with {', '.join(map(str, named))}; exactly one of"
                f" {', '.join(TARGETS)} must name the targets."
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
