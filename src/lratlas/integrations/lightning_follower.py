"""What follows one segment of a search through its training by Lightning."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lratlas.integrations.lightning_data import Position
from lratlas.integrations.lightning_lr import SegmentRates
from lratlas.search.segments import Segment
from lratlas.watching.running_average import RunningAverage

AVERAGED = 64  # weights that enter an average, at most
CHECK_EVERY = 16  # mini-batches between two looks whether the losses are finite


class SegmentFollower(Callback):
    """Sets a segment's LRs and takes from its training what the search needs.

    Args:
        part: The segment.
        path: Where its final state is kept.
        warmup: Optimizer steps over which the LR rises.

    Attributes:
        losses: Of the mini-batches, as far as the module returns them.
        average: Of the weights at the end of the segment.
        position: In the training data.
        rates: What sets the LRs.
    """

    def __init__(self, part: Segment, *, path: Path, warmup: int) -> None:
        self.losses: list[Tensor] = []
        self.average = RunningAverage((), recency=0)
        self.position = Position()
        self.rates = SegmentRates(lr_at=lambda step: _warmed_up(part, step, warmup))
        self._part, self._path = part, path
        self._steps = part.start
        self._every = max(1, (part.stop - part.average_from) // AVERAGED)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to set the LRs, and to average."""
        self.average.restart(pl_module.parameters())
        self.rates.on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: object, batch_idx: int
    ) -> None:
        """Note the loss and the position; average; keep the state after the last step."""
        self._note_loss(trainer, pl_module, outputs)
        self.position.batches += 1
        if self.position.batches >= trainer.num_training_batches:
            self.position.epoch, self.position.batches = self.position.epoch + 1, 0
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        left = self._part.stop - self._steps
        if self._steps > self._part.average_from and (left <= 0 or left % self._every == 0):
            self.average.add()
        if left <= 0:
            whole = self._path.with_suffix(".part")
            trainer.save_checkpoint(whole)
            whole.replace(self._path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The epochs of streams end without a word."""
        if self.position.batches:
            self.position.epoch, self.position.batches = self.position.epoch + 1, 0

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave out hyperparameters: the module is made anew, and they may be objects that are not safe to load."""
        for name in [name for name in checkpoint if "hyper_parameters" in name or "hparams" in name]:
            del checkpoint[name]

    def state_dict(self) -> dict[str, Any]:
        """The position in the data."""
        return {"epoch": self.position.epoch, "batches": self.position.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at a position."""
        self.position.epoch, self.position.batches = state_dict["epoch"], state_dict["batches"]

    def _note_loss(self, trainer: Trainer, pl_module: LightningModule, outputs: Any) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor):
            return
        divided = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
        self.losses.append(loss.detach().mean() * divided)
        if len(self.losses) % CHECK_EVERY == 0 and not torch.stack(self.losses[-CHECK_EVERY:]).isfinite().all():
            trainer.should_stop = True


def _warmed_up(part: Segment, step: int, warmup: int) -> float:
    # Where several optimizers step, Lightning may make a step more than was asked for
    step = min(step, part.stop - 1)
    return part.lr_at(step) * min(1.0, (step + 1) / max(warmup, 1))
