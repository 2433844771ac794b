"""Training data for segments of a training by Lightning: batches from where a segment begins, originals unchanged."""

import copy
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities import CombinedLoader
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, IterableDataset

from lratlas.streams import seeded, torch_seed

Loaders = Any  # a loader, or loaders in lists and dictionaries, as Lightning takes them


@dataclass
class Position:
    """How far a training has come in its data: epochs done, and batches of the present one."""

    epoch: int = 0
    batches: int = 0


class SegmentLoader:
    """A loader's batches from a position on, in an order that follows from the seed and the epoch alone.

    Batches of a map-style data set that were done before are skipped without being loaded. Those of a stream have to
    be drawn. The loader that is wrapped, and its generators, stay as they are.

    Args:
        loader: A ``DataLoader``, or anything else that yields batches.
        position: Where each iteration begins, read when its first batch is asked for.
        seed: Of the order.
    """

    def __init__(self, loader: Iterable[Any], *, position: Position, seed: int) -> None:
        self._loader, self._position, self._seed = loader, position, seed
        self._begun = False

    def __len__(self) -> int:
        """Batches of an epoch; a TypeError where the loader does not know, which is how Lightning asks."""
        return len(self._loader)  # pyright: ignore[reportArgumentType] - some have no length

    def __iter__(self) -> Iterator[Any]:
        epoch, done = self._position.epoch, self._position.batches
        if isinstance(self._loader, DataLoader) and not isinstance(self._loader.dataset, IterableDataset):
            # Beside a longer loader this one may be cycled through several times in an epoch
            cycle, done = divmod(done, max(len(self._loader), 1))
            yield from _rest_of(self._loader, done, torch_seed(self._seed, f"order of epoch {epoch}, cycle {cycle}"))
        else:
            done = 0 if self._begun else done
            self._begun = True
            yield from _beyond(self._loader, done)

    def state_dict(self) -> dict[str, object]:
        """Nothing: the position is kept elsewhere, but Lightning asks each loader that can go on."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Nothing to go on from."""


def segment_loaders(loaders: Loaders, *, position: Position, seed: int) -> Loaders:
    """The loaders, each from its position on; those combined by a ``CombinedLoader`` stay combined in the same way."""

    def segment_one(loader: Iterable[Any]) -> SegmentLoader:
        return SegmentLoader(loader, position=position, seed=seed)

    if isinstance(loaders, CombinedLoader):
        combined = copy.copy(loaders)
        combined.flattened = [segment_one(loader) for loader in loaders.flattened]
        return combined
    return tree_map(segment_one, loaders)


@contextmanager
def segment_source(source: LightningDataModule | LightningModule, *, position: Position, seed: int) -> Generator[None]:
    """This object's ``train_dataloader`` returns loaders from a position on inside."""
    original: Callable[[], Loaders] = source.train_dataloader

    def train_dataloader() -> Loaders:
        return segment_loaders(original(), position=position, seed=seed)

    vars(source)["train_dataloader"] = train_dataloader
    try:
        yield
    finally:
        del vars(source)["train_dataloader"]


@contextmanager
def one_split(*sources: LightningDataModule | LightningModule) -> Generator[None]:
    """What these objects draw in ``setup`` is always the same inside, such as a split into training and validation.

    Without it a search would validate on samples that an earlier segment was trained on. Where validation alone is set
    up, the data of training are as well: some make both sets there.
    """
    originals = [(source, source.setup) for source in sources]
    for source, original in originals:

        def setup(stage: str, original: Callable[[str], None] = original) -> None:
            for part in ("fit", stage) if stage == "validate" else (stage,):
                with seeded(torch_seed(0, "split")):
                    original(part)

        vars(source)["setup"] = setup
    try:
        yield
    finally:
        for source in sources:
            del vars(source)["setup"]


def _rest_of(loader: DataLoader[Any], done: int, seed: int) -> Iterator[Any]:
    rest = copy.copy(loader)
    # A DataLoader forbids to change its sampler, since an iterator may be under way; this copy has none
    entry = "sampler" if loader.batch_sampler is None else "batch_sampler"
    own: dict[str, Any] = {entry: _order(vars(loader)[entry], seed)[done:], "generator": None, "_iterator": None}
    vars(rest).update(own)
    yield from rest


def _order(sampler: Any, seed: int) -> list[Any]:
    """What a sampler yields in an epoch that begins with this seed."""
    sampler = copy.copy(sampler)
    if inner := getattr(sampler, "sampler", None):
        sampler.sampler = copy.copy(inner)
    parts = [sampler, getattr(sampler, "sampler", None)]
    generators = [found for part in parts if isinstance(found := getattr(part, "generator", None), torch.Generator)]
    states = [generator.get_state() for generator in generators]
    with seeded(seed):
        for generator in generators:
            generator.manual_seed(seed)
        order = list(sampler)
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
    return order


def _beyond(stream: Iterable[Any], done: int) -> Iterator[Any]:
    """A stream without its first batches; from the beginning where there are not so many."""
    batches = iter(stream)
    missing = object()
    if any(next(batches, missing) is missing for _ in range(done)):
        batches = iter(stream)
    return batches
