"""`find` for Hugging Face's Trainer: its own trainings, compared as they are."""

import copy
from pathlib import Path
from typing import Any

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
    with pytest.raises(TaskError, match=r"^Own may take arguments"):
        find(trainer_of(tmp_path, kind=Own), folder=tmp_path)
    trainer = trainer_of(tmp_path)
    trainer.eval_dataset = None
    with pytest.raises(TaskError, match="has no eval_dataset"):
        find(trainer, folder=tmp_path)
    with pytest.raises(SearchError, match=r"has no eval_speed; it has eval_loss"):
        find(trainer_of(tmp_path), metric="eval_speed", lrs=LRS, folder=tmp_path / "f")
