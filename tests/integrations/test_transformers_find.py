"""`find` for Hugging Face's Trainer: its own trainings, compared as they are."""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from lratlas.errors import SearchError, TaskError
from lratlas.integrations.transformers import find
from lratlas.search.advice import Advice
from lratlas.search.finder import Finder
from lratlas.search.segments import SegmentResult, block_losses

LRS = [1e-3, 1e-2, 0.1, 1.0]


class Classes(Dataset[dict[str, Tensor]]):
    """Points of two classes; the labels may say nothing of the points."""

    def __init__(self, count: int, seed: int, *, noise: bool = False) -> None:
        draws = torch.Generator().manual_seed(seed)
        self.x = torch.randn(count, 4, generator=draws)
        self.y = torch.randint(2, (count,), generator=draws) if noise else (self.x[:, 0] > 0).long()

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, at: int) -> dict[str, Tensor]:
        return {"x": self.x[at], "labels": self.y[at]}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.layers(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def accuracy(predicted: Any) -> dict[str, float]:
    return {"accuracy": float(np.mean(predicted.predictions.argmax(1) == predicted.label_ids))}


def trainer_of(
    folder: Path, lr: float = 5e-5, *, noise: bool = False, kind: type[Trainer] = Trainer, **options: Any
) -> Trainer:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "max_steps": 128,
        "per_device_train_batch_size": 16,
        "learning_rate": lr,
        "report_to": "none",
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "optim": "sgd",
        "disable_tqdm": True,
        "save_strategy": "no",
    }
    arguments = TrainingArguments(output_dir=str(folder / "out"), **given | options)
    train, held = Classes(256, 1, noise=noise), Classes(200, 2, noise=noise)
    return kind(model=Net(), args=arguments, compute_metrics=accuracy, train_dataset=train, eval_dataset=held)


def searched(folder: Path, *, metric: str = "eval_accuracy", budget: float = 1.5, **options: Any) -> Advice:
    """The advice of a search in the folder `f`."""
    return find(
        lambda lr: trainer_of(folder, lr, **options),
        metric=metric,
        lrs=LRS,
        folder=folder / "f",
        budget=budget,
        chance=0.5 if metric == "eval_accuracy" else None,
    )


def test_a_linear_schedule_is_shrunk_and_kept(tmp_path: Path):
    advice = searched(tmp_path)
    assert advice.lr is not None
    assert 0.01 < advice.lr <= 1.5
    assert (advice.finish, advice.schedule, advice.direction, advice.limit) == ("schedule", "own", "maximize", 1.0)
    finder = Finder(tmp_path / "f")
    assert finder.search.samples == 200
    assert {each.segment.start for each in finder.results} == {0}
    # A segment is what a Trainer of that length reaches by itself.
    last = max(finder.results, key=lambda each: (each.segment.stop, each.segment.lr))
    alone = trainer_of(tmp_path, last.segment.lr, max_steps=last.segment.stop)
    alone.train()
    assert last.value == alone.evaluate()["eval_accuracy"]


def test_under_a_constant_schedule_trainings_continue(tmp_path: Path):
    options: dict[str, Any] = {"lr_scheduler_type": "constant", "gradient_accumulation_steps": 2, "max_grad_norm": 0.1}
    advice = searched(tmp_path, metric="eval_loss", **options)
    assert (advice.finish, advice.schedule, advice.direction) == ("average", "constant", "minimize")
    assert Finder(tmp_path / "f").results[-1].segment.start > 0


def test_a_ready_trainer_stays_as_it_is(tmp_path: Path):
    trainer = trainer_of(tmp_path, eval_strategy="steps", eval_steps=16, save_strategy="steps", save_steps=16)
    trainer.add_callback(EarlyStoppingCallback())
    model = trainer.model
    assert model is not None
    weights, arguments = copy.deepcopy(model.state_dict()), trainer.args.to_dict()
    advice = find(trainer, metric="eval_accuracy", lrs=LRS, folder=tmp_path / "f")
    assert advice.lr is not None
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert trainer.args.to_dict() == arguments
    assert trainer.optimizer is None
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())  # no checkpoint


def test_epochs_are_counted(tmp_path: Path):
    searched(tmp_path, max_steps=-1, num_train_epochs=8, budget=0.2)
    assert Finder(tmp_path / "f").search.steps == 8 * 16


def best(results: Sequence[SegmentResult]) -> SegmentResult:
    """The longest training, at the largest LR of those."""
    return max(results, key=lambda each: (each.segment.stop, each.segment.lr))


def test_what_a_schedule_counts_in_steps_shrinks_with_it(tmp_path: Path):
    def options(steps: int) -> dict[str, Any]:
        decay = {"num_decay_steps": steps // 2}
        return {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": decay, "warmup_steps": steps // 8}

    searched(tmp_path, metric="eval_loss", budget=0.2, **options(128))
    last = best(Finder(tmp_path / "f").results)
    alone = trainer_of(tmp_path, last.segment.lr, max_steps=last.segment.stop, **options(last.segment.stop))
    alone.train()
    assert last.value == alone.evaluate()["eval_loss"]


def test_a_schedule_by_a_metric_has_its_evaluations(tmp_path: Path):
    options: dict[str, Any] = {"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "eval_loss"}
    options |= {"lr_scheduler_kwargs": {"patience": 0, "threshold": 0.5}, "eval_strategy": "steps", "eval_steps": 2}
    advice = searched(tmp_path, metric="eval_loss", budget=0.3, **options)
    assert any("changes its LR over time" in each for each in advice.warnings)
    last = best(Finder(tmp_path / "f").results)
    assert last.segment.start > 0
    alone = trainer_of(tmp_path, last.segment.lr, logging_steps=1, **options)
    alone.train()
    losses = [each["loss"] for each in alone.state.log_history if "loss" in each]
    assert last.losses == block_losses(losses[last.segment.start : last.segment.stop])


def test_another_seed_is_another_training(tmp_path: Path):
    advice = searched(tmp_path, metric="eval_loss", noise=True)
    assert {each.segment.seed for each in Finder(tmp_path / "f").results} > {0}
    assert not any("own seed" in each for each in advice.warnings)


class Telling(Trainer):
    """Its own metrics, in both of the places where subclasses have them."""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        found = super().evaluate(*args, **kwargs)
        return found | {"eval_own": 2 * found["eval_logged"]}

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "eval_loss" in logs:
            logs["eval_logged"] = 3 * logs["eval_loss"]
        super().log(logs, *args, **kwargs)


def test_metrics_of_a_subclass_are_those_of_its_evaluate(tmp_path: Path):
    trainer = trainer_of(tmp_path, kind=Telling)
    find(trainer, metric="eval_own", direction="minimize", lrs=LRS, budget=0.2, folder=tmp_path)
    last = best(Finder(tmp_path).results)
    alone = trainer_of(tmp_path, last.segment.lr, max_steps=last.segment.stop)
    alone.train()
    assert last.value == pytest.approx(6 * alone.evaluate()["eval_loss"], rel=1e-6)


def test_of_several_evaluation_sets_one_is_named(tmp_path: Path):
    trainer = trainer_of(tmp_path)
    trainer.eval_dataset = {"few": Classes(60, 3), "many": Classes(200, 2)}
    find(trainer, metric="eval_few_accuracy", lrs=LRS, budget=0.2, folder=tmp_path / "f")
    assert Finder(tmp_path / "f").search.samples == 60


def test_a_model_is_made_by_a_function_where_that_is_given(tmp_path: Path):
    def trainer(steps: int, lr: float) -> Trainer:
        plain = trainer_of(tmp_path, lr, max_steps=steps)
        sets = {"train_dataset": plain.train_dataset, "eval_dataset": plain.eval_dataset}
        return Trainer(model_init=lambda: cast("Any", Net()), args=plain.args, **cast("Any", sets))

    find(trainer(128, 0.1), lrs=LRS, budget=0.2, folder=tmp_path / "f")
    last = best(Finder(tmp_path / "f").results)
    alone = trainer(last.segment.stop, last.segment.lr)
    alone.train()
    assert last.value == alone.evaluate()["eval_loss"]


def test_of_labels_that_are_noise_nothing_is_learned(tmp_path: Path):
    searched(tmp_path, noise=True)
    for result in Finder(tmp_path / "f").results:
        assert result.quality is not None
        assert abs(result.quality - 0.5) < 4 * (0.25 / 200) ** 0.5  # standard errors


class Own(Trainer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


def test_what_cannot_be_searched_is_named(tmp_path: Path):
    with pytest.raises(TaskError, match="returned a float; it must return a Trainer"):
        find(lambda lr: lr, folder=tmp_path)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TaskError, match=r"^Own may need other arguments"):
        find(trainer_of(tmp_path, kind=Own), folder=tmp_path)
    trainer = trainer_of(tmp_path)
    assert trainer.model is not None
    trainer.model.forward = partial(trainer.model.forward)
    with pytest.raises(TaskError, match="forward of the Trainer's model was replaced"):
        find(trainer, folder=tmp_path)
    trainer = trainer_of(tmp_path)
    trainer.eval_dataset = None
    with pytest.raises(TaskError, match="has no eval_dataset"):
        find(trainer, folder=tmp_path)
    with pytest.raises(SearchError, match=r"has no eval_speed .*; it has eval_loss"):
        find(trainer_of(tmp_path), metric="eval_speed", direction="maximize", lrs=LRS, folder=tmp_path / "f")
