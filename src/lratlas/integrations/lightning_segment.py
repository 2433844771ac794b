"""One segment of a search, trained by Lightning."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] - the base class of all of them

from lratlas.errors import SpecError
from lratlas.integrations.lightning_data import Loaders, Position, one_split, segment_loaders, segment_source
from lratlas.integrations.lightning_follower import SegmentFollower
from lratlas.integrations.lightning_lr import SegmentRates
from lratlas.numbers import first_not_finite
from lratlas.search.segments import Segment
from lratlas.streams import seeded, torch_seed

NORM_BATCHES = 32  # mini-batches from which batch norms' statistics of averaged weights are taken

OWN_OPTIONS: dict[str, Any] = {
    "max_epochs": -1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


@dataclass(frozen=True, kw_only=True)
class LightningTraining:
    """What is trained: everything that the segments of one search have in common.

    Attributes:
        make_module: Makes a new module with fresh weights.
        train: Training loaders; None where the data module or the module itself has them.
        val: The same for validation.
        datamodule: Where the loaders come from; None where they are given or the module's own.
        monitor: The logged metric that counts.
        options: Further arguments of ``Trainer``.
        warmup: Optimizer steps over which the LR rises to that of the trial.
        folder: Where checkpoints are kept, by the name of the segment.
    """

    make_module: Callable[[], LightningModule]
    train: Loaders
    val: Loaders
    datamodule: LightningDataModule | None
    monitor: str
    options: Mapping[str, Any]
    warmup: int
    folder: Path

    def checkpoint(self, name: str) -> Path:
        """Where the final state of a segment is kept."""
        return self.folder / f"{name}.ckpt"

    def trainer(self, *callbacks: Callback, **more: Any) -> Trainer:
        """A new trainer; the objects among the options are copied, since a trainer changes them."""
        options: dict[str, Any] = copy.deepcopy(dict(self.options))
        given: Any = options.pop("callbacks", None) or []
        every = [*callbacks, *(given if isinstance(given, list) else [given])]
        arguments: dict[str, Any] = {"devices": 1, **options, **OWN_OPTIONS, **more}
        return Trainer(**arguments, callbacks=every)


@dataclass(kw_only=True)
class TrainedSegment:
    """What came of a segment.

    Attributes:
        losses: Of the mini-batches, as far as the module returns them.
        value: The metric of the last weights; None where the segment did not end.
        averaged: The metric of the averaged weights; None for an annealed segment.
        steps: Optimizer steps that the training has made, those before the segment included.
    """

    losses: list[float] = field(default_factory=list[float])
    value: float | None = None
    averaged: float | None = None
    steps: int = 0


def train_segment(training: LightningTraining, part: Segment) -> TrainedSegment:
    """Train a segment from its parent's checkpoint, keep its final state, and validate it.

    Raises:
        SpecError: If there is no such metric.
        Exception: Whatever the training raises.
    """
    with seeded(torch_seed(part.seed, f"segment from {part.start}")):
        with seeded(torch_seed(part.seed, "weights")):
            module = training.make_module()
        follower = SegmentFollower(part, path=training.checkpoint(part.name), warmup=training.warmup)
        parent = None if part.parent is None else training.checkpoint(part.parent)
        trainer = training.trainer(follower, max_steps=part.stop, limit_val_batches=0)
        follower.rates.take_over(module)
        _fit(training, trainer, module, follower.position, part.seed, resumed=parent)
        found = TrainedSegment(losses=[float(loss) for loss in follower.losses], steps=trainer.global_step)
        if first_not_finite(found.losses) is not None or trainer.global_step < part.stop:
            return found
        found.value = validate(training, module)
        if not part.annealed:
            with follower.average.swapped_in():
                measure_norms(training, module, part)
                found.averaged = validate(training, module)
        return found


def validate(training: LightningTraining, module: LightningModule) -> float:
    """The metric of a module's weights.

    Raises:
        SpecError: If validation logs no metric of that name.
    """
    trainer = training.trainer()
    datamodule = copy.copy(training.datamodule)
    with one_split(module, *([] if datamodule is None else [datamodule])):
        results = trainer.validate(module, dataloaders=training.val, datamodule=datamodule, verbose=False)
    metrics = {name: value for result in results for name, value in result.items()}
    if training.monitor not in metrics:
        logged = ", ".join(sorted(metrics)) or "nothing"
        raise SpecError(f"validation logs no {training.monitor!r} but {logged}; monitor must be one of them")
    return float(metrics[training.monitor])


def measure_norms(training: LightningTraining, module: LightningModule, part: Segment) -> None:
    """Take batch norms' statistics anew for a module whose weights were averaged; nothing where it has none.

    Any module is fed as it is in training: by a short training whose LR is zero, after which the weights are written
    back.
    """
    norms = [one for one in module.modules() if isinstance(one, _BatchNorm) and one.running_mean is not None]
    if not norms:
        return
    kept = [value.detach().clone() for value in module.parameters()]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all mini-batches
    rates = SegmentRates(lr_at=lambda _: 0.0)
    rates.take_over(module)
    trainer = training.trainer(rates, max_epochs=1, limit_train_batches=NORM_BATCHES, limit_val_batches=0)
    _fit(training, trainer, module, Position(), part.seed)
    with torch.no_grad():
        for value, weights in zip(module.parameters(), kept, strict=True):
            value.copy_(weights)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _fit(
    training: LightningTraining,
    trainer: Trainer,
    module: LightningModule,
    position: Position,
    seed: int,
    *,
    resumed: Path | None = None,
) -> None:
    """Fit a module to training data that begin at the position."""
    where: dict[str, Any] = {"position": position, "seed": seed}
    if training.train is not None:
        trainer.fit(module, train_dataloaders=segment_loaders(training.train, **where), ckpt_path=resumed)
        return
    datamodule = copy.copy(training.datamodule)
    source = module if datamodule is None else datamodule
    with segment_source(source, **where), one_split(module, *([] if datamodule is None else [datamodule])):
        trainer.fit(module, datamodule=datamodule, ckpt_path=resumed)
