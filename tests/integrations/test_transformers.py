"""`watch` in real trainings by Hugging Face's Trainer, on models made from a configuration."""

from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, Trainer, TrainingArguments

from lratlas.errors import LRAtlasError
from lratlas.integrations.transformers import WatchCallback
from lratlas.monitor.tracker import Look


class Counting(Dataset[dict[str, Tensor]]):
    """Numbers that go up by one, modulo 16, in sentences of unequal length; the ends are not predicted."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, at: int) -> dict[str, Tensor]:
        numbers = (at + torch.arange(8)) % 16
        return {"input_ids": numbers, "labels": torch.where(torch.arange(8) < 3 + at % 6, numbers, -100)}


def model() -> PreTrainedModel:
    torch.manual_seed(0)
    options: dict[str, Any] = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 8, "vocab_size": 16}
    return GPT2LMHeadModel(GPT2Config(**options, bos_token_id=0, eos_token_id=0))


class Broken(Trainer):
    """A Trainer with its own loss that is not a number from the fifth step on."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss: Any = super().compute_loss(*args, **kwargs)
        return loss * (float("nan") if self.state.global_step >= 4 else 1.0)


def trainer_of(folder: Path, *, kind: type[Trainer] = Trainer, steps: int, **options: Any) -> Trainer:
    arguments: dict[str, Any] = {
        "max_steps": steps,
        "per_device_train_batch_size": 8,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "logging_steps": 10,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "seed": 1,
    }
    return kind(
        model=model(), args=TrainingArguments(output_dir=str(folder), **arguments | options), train_dataset=Counting()
    )


def weights(trainer: Trainer) -> list[Tensor]:
    assert trainer.model is not None
    return [value.detach() for value in trainer.model.parameters()]


def test_the_training_is_the_same_and_its_losses_are_the_logged_ones(tmp_path: Path) -> None:
    plain = trainer_of(tmp_path, steps=320, gradient_accumulation_steps=2)
    plain.train()
    watched = trainer_of(tmp_path, steps=320, gradient_accumulation_steps=2)
    changes = list[Look]()
    callback = WatchCallback(watched, chance_loss=2.7726, on_change=changes.append)
    watched.add_callback(callback)
    watched.train()
    assert all(torch.equal(*pair) for pair in zip(weights(plain), weights(watched), strict=True))
    logged = [[row for row in one.state.log_history if "loss" in row] for one in (plain, watched)]
    assert [row["loss"] for row in logged[0]] == [row["loss"] for row in logged[1]]
    assert len(logged[0]) == 32
    assert callback.watch is not None
    assert callback.watch.steps == 320
    last = callback.watch.log[-1]
    assert last.loss == pytest.approx(sum(row["loss"] for row in logged[0][-8:]) / 8, rel=0.05)
    assert last.regime == "converging"
    assert [look.regime for look in changes] == ["converging"]
    looks = [row for row in watched.state.log_history if "watch/regime" in row]
    assert [row["watch/regime"] for row in looks] == [1.0] * len(callback.watch.log)
    assert looks[-1]["watch/loss"] == last.loss
    assert "training_step" not in vars(watched)


def test_losses_that_the_trainer_hides_are_seen(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, kind=Broken, steps=12, logging_steps=4)
    callback = WatchCallback(trainer)
    trainer.add_callback(callback)
    trainer.train()
    logged = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert all(isfinite(loss) for loss in logged)  # as if nothing had happened
    assert "diverging; the loss is not finite" in callback.report()
    assert next(row["watch/regime"] for row in trainer.state.log_history if "watch/regime" in row) == 3.0


def twice(outputs: Any, labels: Tensor, num_items_in_batch: Tensor) -> Tensor:
    """Twice the cross-entropy of the step, a mini-batch's part of it."""
    logits = outputs["logits"][:, :-1].flatten(0, 1)
    total = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum")
    return 2 * total / num_items_in_batch


@pytest.mark.parametrize("how", ["smoothed", "function"])
def test_losses_that_the_model_does_not_compute_are_seen(tmp_path: Path, how: str) -> None:
    smoothing = 0.1 if how == "smoothed" else 0.0
    trainer = trainer_of(
        tmp_path, steps=4, gradient_accumulation_steps=2, logging_steps=1, label_smoothing_factor=smoothing
    )
    trainer.compute_loss_func = twice if how == "function" else None
    callback = WatchCallback(trainer)
    trainer.add_callback(callback)
    trainer.train()
    assert callback.watch is not None
    logged = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert callback.watch.state_dict()["tracker"]["first_losses"] == pytest.approx(logged, rel=1e-5)
    assert logged[0] > (4 if how == "function" else 2)  # about ln 16 = 2.8, or twice that


def test_a_resumed_training_goes_on_being_watched(tmp_path: Path) -> None:
    first = trainer_of(tmp_path, steps=270, save_strategy="steps", save_steps=260)
    before = WatchCallback(first)
    first.add_callback(before)
    first.train()
    second = trainer_of(tmp_path, steps=270, restore_callback_states_from_checkpoint=True)
    callback = WatchCallback(second)
    second.add_callback(callback)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-260"))
    assert callback.watch is not None
    assert before.watch is not None
    assert callback.watch.steps == 270
    assert callback.watch.log[0] == before.watch.log[0]
    assert callback.watch.log[0].step == 256


def test_a_training_that_breaks_off_leaves_the_trainer_usable(tmp_path: Path) -> None:
    def stop(_: Look) -> None:
        raise InterruptedError

    trainer = trainer_of(tmp_path, kind=Broken, steps=40)
    callback = WatchCallback(trainer, on_change=stop)
    trainer.add_callback(callback)
    with pytest.raises(LRAtlasError, match="has seen no training"):
        callback.report()
    for _ in range(2):
        with pytest.raises(InterruptedError):
            trainer.train()
