import errno
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

import lratlas
from lratlas.config.grid import lr_grid
from lratlas.errors import SearchError, SpecError, TaskError
from lratlas.training.batches import batch_indices
from lratlas.training.prepared import make_model
from lratlas.training.trainer import train_stack

LRS = lr_grid(1e-3, 10.0, per_decade=2)


def blobs(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    centres = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]])
    return centres[y] + 0.7 * torch.randn(count, 2, generator=generator), y


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 3))


def with_dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 3))


def small_task(**changes: Any) -> lratlas.Task:
    given: dict[str, Any] = {
        "model": network,
        "train": blobs(192, 0),
        "validation": blobs(90, 1),
        "test": blobs(30, 2),
        "batch_size": 16,
        "rule": {"name": "sgd", "momentum": 0.9},
    }
    return lratlas.Task(**(given | changes))


def measured(monkeypatch: pytest.MonkeyPatch, strategies: Sequence[str]) -> None:
    """Have measurements of what trains faster come out as given, one after the other."""
    left = iter(strategies)

    def next_one(*_: object, **__: object) -> str:
        return next(left)

    monkeypatch.setattr("lratlas.search.segment_trainer.faster_strategy", next_one)


def plain_steps(task: lratlas.Task, model: nn.Module, lr: float, start: int, stop: int, *, seed: int = 0) -> None:
    """Gradient steps of an ordinary loop, with the batches of a search."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for rows in batch_indices(seed=seed, start=start, stop=stop, samples=192, batch_size=16):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(task.train[0][rows]), task.train[1][rows]).backward()
        optimizer.step()


def plain_training(
    task: lratlas.Task, lr: float, steps: int, *, averaged: int = 1, share: Callable[[int], float] = lambda _: 1.0
) -> float:
    """Validation accuracy after an ordinary loop with the same initial weights and batches.

    It is that of the mean of the weights after each of the last ``averaged`` steps. The LR of a step is multiplied by
    its ``share``.
    """
    model = make_model(task.prepared, 0)
    optimizer, mean = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9), AveragedModel(model)
    for step, rows in enumerate(batch_indices(seed=0, start=0, stop=steps, samples=192, batch_size=16)):
        optimizer.param_groups[0]["lr"] = lr * share(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(task.train[0][rows]), task.train[1][rows]).backward()
        optimizer.step()
        if step >= steps - averaged:
            mean.update_parameters(model)
    assert isinstance(task.validation, tuple)
    x, y = task.validation
    return float((mean(x).argmax(1) == y).double().mean())


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[lratlas.Advice, Path]:
    """A whole search of the small task with 256 steps, and its folder."""
    folder = tmp_path_factory.mktemp("searched")
    return lratlas.find(small_task(), steps=256, lrs=LRS, folder=folder), folder


def numbers(advice: lratlas.Advice) -> list[dict[str, object]]:
    return advice.evidence.drop("seconds").to_dicts()


def test_what_is_told_of_an_lr_is_what_an_ordinary_loop_reaches(searched: tuple[lratlas.Advice, Path]):
    task, (advice, _) = small_task(), searched
    rows = advice.evidence.filter(~advice.evidence["annealed"] & (advice.evidence["seed"] == 0))
    longest = rows.sort("steps").row(-1, named=True)
    # A stack adds in another order, so that a sample on the border may fall to the other side.
    assert longest["value"] == pytest.approx(plain_training(task, longest["lr"], longest["steps"]), abs=1.5 / 90)


def test_the_advice_is_as_good_as_training_every_lr_in_full(searched: tuple[lratlas.Advice, Path]):
    task, (advice, _) = small_task(), searched
    assert advice.finish in {"average", "either"}
    assert advice.lr is not None
    assert advice.low is not None
    assert advice.high is not None
    best = max(plain_training(task, lr, 256, averaged=26) for lr in LRS)
    # Twice the standard error of a difference between accuracies of 85% on 90 samples each.
    assert plain_training(task, advice.lr, 256, averaged=26) >= best - 2 * (2 * 0.85 * 0.15 / 90) ** 0.5
    assert advice.low <= advice.lr <= advice.high
    assert advice.cost <= 1.5


def test_the_divergence_threshold_of_least_squares_is_the_known_one(tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator) * torch.tensor([2.0, 1.0, 0.5, 0.2])
    y = x @ torch.ones(4, 1)
    task = lratlas.Task(
        model=lambda: nn.Linear(4, 1, bias=False),
        train=(x, y),
        validation=(x, y),
        test=(x, y),
        loss="mse",
        batch_size="full",
        rule="sgd",
    )
    advice = lratlas.find(task, steps=6400, lrs=lr_grid(1e-3, 10.0, per_decade=4), folder=tmp_path)
    # Gradient descent on a quadratic diverges above 2 over the largest eigenvalue of the Hessian.
    threshold = 2 / float(torch.linalg.eigvalsh(2 * x.T @ x / 64).max())
    assert advice.divergence is not None
    assert advice.divergence.below < threshold < advice.divergence.above
    assert advice.lr is not None
    assert advice.lr < threshold
    assert advice.direction == "minimize"


def test_an_interrupted_search_goes_on_to_the_same_end(
    searched: tuple[lratlas.Advice, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    task, (whole, folder) = small_task(), searched
    # A search measures once what trains faster: a second measurement would find nothing to answer.
    measured(monkeypatch, [(folder / "strategy.txt").read_text()])
    told = 0

    def interrupt(_: object) -> None:
        nonlocal told
        told += 1
        if told in {1, 3}:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            lratlas.find(task, steps=256, lrs=LRS, folder=tmp_path / "parts", progress=interrupt)
    parts = lratlas.find(task, steps=256, lrs=LRS, folder=tmp_path / "parts")
    assert numbers(parts) == numbers(whole)
    assert parts.lr == whole.lr


@pytest.fixture
def kept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """States are stored at every chance, not only after seconds of training."""
    monkeypatch.setattr("lratlas.search.segment_trainer._KEPT_EVERY", -1.0)


@pytest.mark.usefixtures("kept_at_once")
@pytest.mark.parametrize(("strategy", "count"), [("stack", 3), ("stack", 10), ("single", 3)])
def test_an_interruption_in_the_middle_of_a_stack_costs_no_state_that_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, count: int
):
    # What is faster is measured, and may come out otherwise from one search to the next.
    measured(monkeypatch, [strategy, strategy])
    task = small_task(model=with_dropout)
    settings: dict[str, Any] = {"steps": 1280, "lrs": LRS, "budget": 0.2}
    whole = lratlas.find(task, folder=tmp_path / "whole", **settings)
    trained = list[int]()

    def counting(program: Any, stack: Any, **given: Any) -> Any:
        if len(trained) == count:
            raise KeyboardInterrupt
        assert stack.alive.numel() == 1 or strategy == "stack"
        trained.append(len(given["batches"]) * stack.alive.numel())
        return train_stack(program, stack, **given)

    monkeypatch.setattr("lratlas.search.segment_trainer.train_stack", counting)
    with pytest.raises(KeyboardInterrupt):
        lratlas.find(task, folder=tmp_path / "parts", **settings)
    count = -1  # of what comes now, nothing is interrupted
    parts = lratlas.find(task, folder=tmp_path / "parts", **settings)
    assert numbers(parts) == numbers(whole)
    # Stretches of training are counted before they are begun: the last one was done and kept.
    assert sum(trained) == round(whole.cost * 1280)
    assert not list((tmp_path / "parts" / "states").iterdir())


@pytest.mark.usefixtures("kept_at_once")
def test_what_was_kept_of_a_stack_and_is_damaged_is_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    task = small_task()
    measured(monkeypatch, ["stack", "stack"])
    whole = lratlas.find(task, steps=1280, lrs=LRS, folder=tmp_path / "whole", budget=0.2)

    def interrupted(program: Any, stack: Any, **given: Any) -> Any:
        if stack.step >= 10:
            raise KeyboardInterrupt
        return train_stack(program, stack, **given)

    monkeypatch.setattr("lratlas.search.segment_trainer.train_stack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lratlas.find(task, steps=1280, lrs=LRS, folder=tmp_path / "parts", budget=0.2)
    monkeypatch.setattr("lratlas.search.segment_trainer.train_stack", train_stack)
    (part,) = (tmp_path / "parts" / "states").glob("*.part")
    whole_part = part.read_bytes()
    part.write_bytes(whole_part[:-1] + bytes([whole_part[-1] ^ 1]))  # one bit of a number
    assert numbers(lratlas.find(task, steps=1280, lrs=LRS, folder=tmp_path / "parts", budget=0.2)) == numbers(whole)


def test_a_finished_search_trains_nothing_and_keeps_no_states(searched: tuple[lratlas.Advice, Path]):
    first, folder = searched
    assert first.direction == "maximize"  # an accuracy
    assert not list((folder / "states").iterdir())
    again = lratlas.find(small_task(), steps=256, lrs=LRS, folder=folder, progress=lambda _: pytest.fail("it trained"))
    assert again.evidence.equals(first.evidence)


def test_neither_the_test_set_nor_global_state_plays_a_part(tmp_path: Path):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one = lratlas.find(small_task(), steps=128, lrs=LRS, folder=tmp_path / "one")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    x, y = blobs(30, 5)
    other = lratlas.find(small_task(test=(100 * x, y.flip(0))), steps=128, lrs=LRS, folder=tmp_path / "other")
    assert numbers(one) == numbers(other)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": lambda: nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))},
        {"model": lambda: nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))},
        {"rule": "adamw"},
        {"rule": torch.optim.RMSprop},
        {"validation": 0.3},
        {"validation": None},
    ],
    ids=["batch norm", "dropout", "adamw", "any optimizer", "a share", "none given"],
)
def test_it_works_with(changes: dict[str, Any], tmp_path: Path):
    lrs = lr_grid(1e-3, 1, per_decade=2)
    advice = lratlas.find(small_task(**changes), steps=128, lrs=lrs, budget=0.5, folder=tmp_path)
    assert advice.best > 0.6  # three classes


def test_epochs_are_counted_in_steps(tmp_path: Path):
    advice = lratlas.find(small_task(), epochs=10, lrs=LRS, budget=0.3, folder=tmp_path)
    assert advice.steps == 10 * (192 // 16)
    given: dict[str, Any] = {"epochs": np.int64(10), "lrs": np.array(LRS), "budget": np.float64(0.3)}
    assert lratlas.find(small_task(), folder=tmp_path, **given) == advice


@pytest.mark.parametrize("epochs", [1, 6])
def test_a_training_may_be_short(epochs: int, tmp_path: Path):
    # Twelve batches of 16 are an epoch of 192 samples.
    advice = lratlas.find(small_task(), folder=tmp_path, epochs=epochs, lrs=[0.01, 0.1, 1.0])
    assert advice.steps == 12 * epochs
    assert advice.cost <= 1.5


@pytest.mark.parametrize("length", [{}, {"steps": 100, "epochs": 3}, {"steps": 0}, {"steps": True}])
def test_a_length_that_is_none(length: dict[str, int], tmp_path: Path):
    with pytest.raises(SpecError, match="steps"):
        lratlas.find(small_task(), folder=tmp_path, **cast("dict[str, Any]", length))


@pytest.mark.parametrize("epochs", [0, 1.5, True, "3", np.array([1, 2])])
def test_epochs_are_a_whole_number(epochs: Any, tmp_path: Path):
    with pytest.raises(SpecError, match=r"^epochs is .*; it must be a whole number of at least 1"):
        lratlas.find(small_task(), folder=tmp_path, epochs=epochs)


def test_a_folder_of_another_task(tmp_path: Path):
    task = small_task()
    lratlas.find(task, steps=64, lrs=LRS, budget=0.3, folder=tmp_path)
    with pytest.raises(SearchError, match="a different task"):
        lratlas.find(replace(task, train=blobs(192, 9)), steps=64, lrs=LRS, budget=0.3, folder=tmp_path)


def test_a_validation_share_out_of_range(tmp_path: Path):
    with pytest.raises(TaskError, match="validation"):
        lratlas.find(small_task(validation=None), steps=64, validation=1.5, folder=tmp_path)


def test_batch_norm_whose_averages_would_lack_statistics_is_refused(tmp_path: Path):
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 3))

    with pytest.raises(TaskError, match="no running statistics"):
        lratlas.find(small_task(model=model), steps=64, folder=tmp_path)


def test_a_disk_that_fails_is_named_and_what_the_search_has_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    task = small_task()
    whole = lratlas.find(task, steps=64, lrs=LRS, budget=0.3, folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("lratlas.search.segment_trainer.write_file", full)
        with pytest.raises(SearchError, match=r"No space left on device.*are saved"):
            lratlas.find(task, steps=64, lrs=LRS, budget=0.3, folder=tmp_path / "search")
    assert str(lratlas.find(task, steps=64, lrs=LRS, budget=0.3, folder=tmp_path / "search")) == str(whole)


def test_a_device_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(SpecError, match=r"^device is 'cuda:77'"):
        lratlas.find(small_task(), steps=64, device="cuda:77", folder=tmp_path)


def lose(state: Path) -> None:
    state.unlink()


def alter(state: Path) -> None:
    whole = state.read_bytes()
    state.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))


@pytest.mark.parametrize("spoil", [lose, alter])
def test_a_state_that_was_lost_or_altered_is_trained_again(
    spoil: Callable[[Path], None],
    searched: tuple[lratlas.Advice, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    def spoil_all(_: object) -> None:
        for path in (tmp_path / "states").iterdir():
            spoil(path)

    whole, folder = searched
    measured(monkeypatch, [(folder / "strategy.txt").read_text()])
    advice = lratlas.find(small_task(), steps=256, lrs=LRS, folder=tmp_path, progress=spoil_all)
    # Other LRs are trained next to it the second time, which may change last bits.
    assert advice.lr == pytest.approx(whole.lr)
    assert advice.evidence["lr"].equals(whole.evidence["lr"])
    for name in ("value", "averaged"):
        assert advice.evidence[name].to_list() == pytest.approx(whole.evidence[name].to_list(), abs=0.03)


def test_a_larger_budget_continues_a_finished_search(searched: tuple[lratlas.Advice, Path], tmp_path: Path):
    first, folder = searched
    shutil.copytree(folder, tmp_path / "more")
    more = lratlas.find(small_task(), steps=256, lrs=LRS, folder=tmp_path / "more", budget=4)
    assert first.cost <= 1.5 < more.cost <= 4
    key = ["lr", "seed", "steps", "annealed"]
    both = first.evidence.join(more.evidence, on=key, suffix="_more", nulls_equal=True)
    assert len(both) == len(first.evidence)  # all that it had is there
    assert both["averaged"].equals(both["averaged_more"], null_equal=True)
    assert more.evidence["seed"].n_unique() > 1
    with pytest.raises(SearchError, match=r"has budget = 4\.0, but 1\.5 was requested"):
        lratlas.find(small_task(), steps=256, lrs=LRS, folder=tmp_path / "more")


def test_other_seeds_are_other_trainings(tmp_path: Path):
    settings: dict[str, Any] = {"steps": 128, "lrs": LRS, "budget": 0.3}
    advices = [lratlas.find(small_task(), folder=tmp_path / str(seed), seed=seed, **settings) for seed in (0, 5)]
    assert [set(advice.evidence["seed"]) for advice in advices] == [{0}, {5}]
    values = [advice.evidence.sort("lr", "steps")["averaged"].to_list() for advice in advices]
    assert values[0] != values[1]
    with pytest.raises(SearchError, match="seed = 5, but 0"):
        lratlas.find(small_task(), folder=tmp_path / "5", seed=0, **settings)


def test_a_schedule_is_that_of_an_ordinary_loop(tmp_path: Path):
    task = small_task()
    lrs = [0.01, 0.1, 1.0]
    advice = lratlas.find(task, steps=256, lrs=lrs, schedule="linear", warmup=64, folder=tmp_path)
    assert advice.finish == "schedule"
    assert not advice.evidence["annealed"].any()
    assert advice.evidence["averaged"].drop_nulls().is_empty()
    longest = advice.evidence.filter(advice.evidence["seed"] == 0).sort("steps").row(-1, named=True)
    steps = longest["steps"]
    warmup = steps // 4  # a quarter of every training

    def share(step: int) -> float:
        return (step + 1) / warmup if step < warmup else 1 - (step - warmup) / (steps - warmup)

    reached = plain_training(task, longest["lr"], steps, share=share)
    assert longest["value"] == pytest.approx(reached, abs=1.5 / 90)


def constant_at_first() -> nn.Module:
    """A linear model that says the first of three classes of everything."""
    model = nn.Linear(2, 3)
    nn.init.zeros_(model.weight)
    model.bias.data = torch.tensor([1.0, 0.0, 0.0])
    return model


def test_lrs_that_are_far_too_small_have_not_learned(tmp_path: Path):
    task = small_task(model=constant_at_first)
    advice = lratlas.find(task, steps=128, lrs=[1e-12, 1e-11, 1e-10], folder=tmp_path)
    assert advice.lr is None
    assert advice.verdict == "not_learned"
    assert re.search("Train for longer, or try LRs above 1e-[89]", advice.reason)
    assert advice.checkpoint is None
    assert not (tmp_path / "checkpoint.safetensors").exists()


def ignores_its_lr(weights: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:  # noqa: ARG001
    return torch.optim.SGD(weights, lr=0.1)


def test_an_optimizer_that_ignores_its_lr_is_noticed(tmp_path: Path):
    advice = lratlas.find(small_task(rule=ignores_its_lr), steps=128, lrs=LRS, folder=tmp_path)
    assert (advice.verdict, advice.lr) == ("tie", None)
    assert "the LR has no effect" in advice.reason


def test_a_net_too_deep_to_learn_has_learned_nothing(tmp_path: Path):
    def deep() -> nn.Module:
        hidden = [layer for _ in range(24) for layer in (nn.Linear(16, 16), nn.ReLU())]
        return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), *hidden, nn.Linear(16, 3))

    advice = lratlas.find(small_task(model=deep), steps=256, lrs=LRS, folder=tmp_path)
    assert (advice.verdict, advice.lr, advice.low) == ("not_learned", None, None)
    assert "beat an untrained model (0.3333)" in advice.reason
    assert str(advice).startswith("No LR is recommended.\nNo LR learned anything yet")


def least_squares() -> lratlas.Task:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    y = x @ torch.ones(4, 1)
    given: dict[str, Any] = {"train": (x, y), "validation": (x, y), "test": (x, y), "loss": "mse"}
    return lratlas.Task(model=lambda: nn.Linear(4, 1, bias=False), batch_size="full", rule="sgd", **given)


def test_where_all_lrs_are_huge_they_diverge(tmp_path: Path):
    advice = lratlas.find(least_squares(), steps=3200, lrs=[1e10, 1e11, 1e12], folder=tmp_path)
    assert (advice.verdict, advice.lr) == ("diverged", None)
    assert "All " in advice.reason
    assert "LRs diverged, even" in advice.reason


def test_losses_that_are_never_finite_point_to_the_data(tmp_path: Path):
    """A script's data are not checked beforehand; that the loss is NaN at the smallest LR too names them."""

    def train(lr: float) -> None:
        model = nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        x = torch.ones(16, 4)
        x[3, 2] = torch.nan
        for _ in range(100):
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    advice = lratlas.find(train, steps=100, lrs=[1e-6, 1e-4, 1e-2], folder=tmp_path)
    assert (advice.verdict, advice.lr) == ("diverged", None)
    assert "not finite from the start" in advice.reason
    assert "NaN or infinity in the data" in advice.reason


def test_below_huge_lrs_one_that_learns_is_found(tmp_path: Path):
    advice = lratlas.find(least_squares(), steps=3200, lrs=[1e2, 1e3], folder=tmp_path)
    assert advice.verdict == "found"
    assert advice.lr is not None
    # Gradient descent on least squares converges below 2 over the largest eigenvalue of the Hessian.
    assert advice.lr < 2 / float(
        torch.linalg.eigvalsh(2 * least_squares().train[0].T @ least_squares().train[0] / 64).max()
    )


def test_from_the_checkpoint_a_training_continues(tmp_path: Path):
    task = small_task(rule="sgd")  # without momentum, so that the weights are all that a training has
    advice = lratlas.find(task, steps=256, lrs=[0.03, 0.1, 0.3, 1.0], folder=tmp_path)
    assert advice.checkpoint == tmp_path / "checkpoint.safetensors"
    with safe_open(advice.checkpoint, "pt") as file:
        about = file.metadata()
    lr, step, seed = float(about["lr"]), int(about["step"]), int(about["seed"])
    assert advice.segment == f"lr{lr:.6g}-seed{seed}-to{step}"
    (row,) = advice.evidence.filter(
        (advice.evidence["lr"] == lr) & (advice.evidence["steps"] == step) & ~advice.evidence["annealed"]
    ).rows(named=True)
    model = network()
    assert advice.checkpoint is not None
    model.load_state_dict(load_file(advice.checkpoint))
    assert isinstance(task.validation, tuple)
    x, y = task.validation
    assert float((model(x).argmax(1) == y).double().mean()) == pytest.approx(row["value"], abs=1.5 / 90)
    whole = make_model(task.prepared, seed)
    plain_steps(task, whole, lr, 0, 2 * step, seed=seed)
    plain_steps(task, model, lr, step, 2 * step, seed=seed)
    for one, other in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_finished_search_gives_its_checkpoint_again(searched: tuple[lratlas.Advice, Path]):
    first, folder = searched
    again = lratlas.find(small_task(), steps=256, lrs=LRS, folder=folder)
    assert again == first
    assert first.checkpoint == folder / "checkpoint.safetensors"
    assert (folder / "checkpoint.safetensors").exists()


def test_last_weights_are_evaluated_only_late(searched: tuple[lratlas.Advice, Path]):
    advice, _ = searched
    rows = advice.evidence.filter(~advice.evidence["annealed"])
    assert rows["averaged"].null_count() == 0
    early = rows.filter(rows["steps"] < 256 / 8)
    assert early["value"].null_count() == early.height > 0
    assert rows.filter(rows["steps"] >= 256 / 8)["value"].null_count() == 0


def test_a_search_needs_no_test_set(
    searched: tuple[lratlas.Advice, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, folder = searched
    measured(monkeypatch, [(folder / "strategy.txt").read_text()])
    given = {name: getattr(small_task(), name) for name in ("model", "train", "validation", "batch_size", "rule")}
    assert numbers(lratlas.find(lratlas.Task(**given), steps=256, lrs=LRS, folder=tmp_path)) == numbers(whole)


def test_a_study_needs_a_test_set(tmp_path: Path):
    task = lratlas.Task(model=network, train=blobs(192, 0), batch_size=16)
    with pytest.raises(TaskError, match=r"no test set, but a study compares LRs on one: pass `test`\."):
        lratlas.explore(task, pretrain={"lrs": [0.1], "epochs": 1}, folder=tmp_path / "study")


class LightningModule(nn.Module):  # as in a package that is not imported here
    __module__ = "lightning.pytorch"


class Trainer:
    __module__ = "transformers.trainer"


class OwnTrainer(Trainer):
    pass


@pytest.mark.parametrize(
    ("given", "way"),
    [
        (DataLoader(TensorDataset(*blobs(8, 0))), r"lratlas\.Task\(model=make_model, train=data\)"),
        ({"x": 1, "y": 2}, r"lratlas\.Task\("),
        (nn.Linear(2, 2), r"lratlas\.Task\("),
        (nn.Linear, r"not a Linear: .*lratlas\.Task\("),
        (None, r"lratlas\.Task\("),
        ("train.py", "run lratlas find"),
        (Path("spec.toml"), "run lratlas find"),
        (LightningModule(), r"lratlas\.integrations\.lightning\.find"),
        (OwnTrainer(), r"lratlas\.integrations\.transformers\.find"),
    ],
)
def test_what_is_no_task_is_told_its_way(given: Any, way: str):
    with pytest.raises(TaskError, match=rf"find takes a Task or a function of the LR that trains.*{way}"):
        lratlas.find(given, steps=64)


def test_a_language_model_is_searched_for_as_it_is():
    tokens = torch.randint(7, (64, 5), generator=torch.Generator().manual_seed(0))

    def model() -> nn.Module:
        return nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 7))

    advice = lratlas.find(
        lratlas.Task(model=model, train={"ids": tokens, "labels": tokens}, validation=(tokens, tokens), batch_size=16),
        steps=64,
        lrs=[0.1, 1.0, 10.0],
    )
    assert advice.direction == "maximize"  # the accuracy over positions
    assert advice.best > 0.5
