"""The code that a page shows for a full training at the advised LR: it runs, and it does what it says."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from docs.pages import blocks, text_of
from lratlas.report.search_page import Recipe, recipes
from lratlas.search.advice import Advice
from report.search_helpers import advice, row, without_lr

STEPS = 80


class Counter(nn.Module):
    """A model whose weight is the number of steps that it was trained for."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Parameter(torch.zeros(1))
        self.norm = nn.BatchNorm1d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.steps)


def made(**fields: Any) -> Advice:
    settings: dict[str, Any] = {"steps": STEPS, "lr": 0.25, "finish": "either"}
    return advice(row(0.1, 20, 0.8), **(settings | fields))


def by_heading(found: list[Recipe]) -> dict[str, Recipe]:
    return {each.heading.split()[0]: each for each in found}


def kept_by(code: str, validate: Callable[[nn.Module], float]) -> float:
    """Run code with what it leaves to the reader; the weight of the model that it keeps."""
    trained = list[int]()

    def train_one_step(model: Counter, _: object) -> None:
        trained.append(1)
        with torch.no_grad():
            model.steps.add_(1)

    names: dict[str, Any] = {"model": Counter(), "optimizer": None, "train_loader": [torch.randn(8, 1)]}
    names |= {"train_one_step": train_one_step, "validate": validate}
    exec(code, names)
    assert len(trained) == STEPS
    return names["kept"].steps.item()


@pytest.mark.parametrize(
    ("direction", "target", "kept"),
    [
        ("maximize", 80, 76.5),  # the mean of 73 to 80
        ("maximize", 0, 10),
        ("minimize", 20, 19.5),
        ("minimize", 40, 38.5),
    ],
)
def test_the_best_of_the_averages_is_kept(direction: str, target: float, kept: float) -> None:
    recipe = by_heading(recipes(made(direction=direction)))["Average"]

    def validate(model: nn.Module) -> float:
        distance = abs(next(model.parameters()).item() - target)
        return -distance if direction == "maximize" else distance

    assert kept_by(recipe.code, validate) == pytest.approx(kept)


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_the_code_for_a_few_epochs_runs(steps: int) -> None:
    found = by_heading(recipes(made(steps=steps, counted="epochs")))
    trained, model = list[int](), Counter()

    def train_one_epoch(*_: object) -> None:
        trained.append(1)

    def validate(_: nn.Module) -> float:
        return 1.0

    names: dict[str, Any] = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=1.0)}
    names |= {"train_one_epoch": train_one_epoch, "validate": validate, "train_loader": [torch.randn(8, 1)]}
    for code in (found["Average"].code, found["Anneal"].code):
        trained.clear()
        exec(code, dict(names))
        assert len(trained) == steps


def test_the_annealed_code_follows_the_advice() -> None:
    found = made(finish="anneal")
    code = recipes(found)[0].code
    lrs, model = list[float](), Counter()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def train_one_step(_: object, optimizer: torch.optim.Optimizer) -> None:
        lrs.append(optimizer.param_groups[0]["lr"])

    exec(code, {"model": model, "optimizer": optimizer, "train_one_step": train_one_step})
    assert lrs == pytest.approx([found.lr_at(step, finish="anneal") for step in range(STEPS)])


def test_the_advised_way_comes_first() -> None:
    for finish, first in (("average", "Average"), ("either", "Average"), ("constant", "Average"), ("anneal", "Anneal")):
        assert recipes(made(finish=finish))[0].heading.startswith(first)


def test_a_schedule_is_kept() -> None:
    (recipe,) = recipes(made(finish="schedule"))
    assert "lr=2.5e-1" in recipe.code


def test_the_checkpoint_is_where_the_training_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Start" not in by_heading(recipes(made(segment="lr0.3-seed0-to20")))
    path = tmp_path / "checkpoint.safetensors"
    recipe = by_heading(recipes(made(segment="lr0.3-seed0-to20", checkpoint=path)))["Start"]
    assert "20 of the 80 steps at LR 3e-1," in recipe.words
    model = Counter()
    save_file({name: value + 3 for name, value in model.state_dict().items()}, path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"model": model}
    exec(recipe.code, names)
    assert model.steps.item() == 3
    assert names["step"] == STEPS - 1


@pytest.mark.parametrize(
    ("done", "late"),
    [(5, None), (10, "1/8 of"), (16, "1/8 of"), (20, "1/8 and 1/4 of"), (40, "1/8, 1/4 and 1/2 of")],
)
def test_averages_from_before_the_checkpoint_are_not_promised(done: int, late: str | None) -> None:
    found = made(segment=f"lr0.3-seed0-to{done}", checkpoint=Path("checkpoint.safetensors"))
    words = by_heading(recipes(found))["Start"].words
    assert ("too late" in words) == (late is not None)
    assert late is None or f"averages after {late} the training" in words


class _Loop:
    """What a recipe does: the steps that it trains, the LR of each, and the averages that it validates."""

    def __init__(self) -> None:
        self.model = Counter()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.25)
        self.lrs = list[float]()
        self.validated = list[float]()
        self.names: dict[str, Any] = {}

    def train_one_step(self, model: Counter, optimizer: torch.optim.Optimizer) -> None:
        self.lrs.append(optimizer.param_groups[0]["lr"])
        with torch.no_grad():
            model.steps.add_(1)

    def validate(self, model: nn.Module) -> float:
        self.validated.append(next(model.parameters()).item())
        return -abs(self.validated[-1] - 20)

    def run(self, code: str, **names: object) -> None:
        given = {"model": self.model, "optimizer": self.optimizer, "train_loader": [torch.randn(8, 1)]}
        self.names = {**given, "train_one_step": self.train_one_step, "validate": self.validate, **names}
        exec(code, self.names)


def test_the_recipes_of_the_documentation_do_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.safetensors"
    found = made(segment="lr0.3-seed0-to20", checkpoint=path)
    shown = by_heading(recipes(found))
    page = text_of("docs/find.md").partition("## The full training")[2]
    averaging, annealing, continuing = [
        block for block in blocks("python", page.partition("## When")[0]) if "advice" in block
    ]
    save_file({name: value + 3 for name, value in Counter().state_dict().items()}, path)
    monkeypatch.chdir(tmp_path)
    pairs = (
        (averaging, shown["Average"].code, STEPS),
        (annealing, shown["Anneal"].code, STEPS),
        # The page leaves the steps to the recipes above it.
        (continuing, shown["Start"].code.replace("...", "train_one_step(model, optimizer)"), STEPS - 20),
    )
    for documented, code, steps in pairs:
        first, second = _Loop(), _Loop()
        modules = {"copy": copy, "torch": torch, "AveragedModel": AveragedModel, "update_bn": update_bn}
        first.run(documented, advice=found, make_model=Counter, load_file=load_file, **modules)
        second.run(code)
        assert len(first.lrs) == len(second.lrs) == steps
        assert first.lrs == pytest.approx(second.lrs)
        assert first.validated == second.validated
        assert first.names["step"] == second.names["step"] == STEPS - 1
        assert first.names["model"].steps.item() == second.names["model"].steps.item()
        if steps == STEPS and first.validated:
            assert first.names["kept"].steps.item() == second.names["kept"].steps.item()


@pytest.mark.parametrize("verdict", ["tie", "not_learned", "diverged"])
def test_without_an_lr_there_is_no_recipe(verdict: str) -> None:
    assert recipes(made(**without_lr(verdict))) == []
