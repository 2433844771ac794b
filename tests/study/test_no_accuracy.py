"""Studies that lack what most have: accuracies, a PLR that learns, or one that moves the loss at all."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest
import torch
from torch import Tensor, nn

import lratlas
from cheaper import undrawn, unfigured, workerless
from lratlas import Task
from lratlas.api.compare import compare
from lratlas.api.report import draw_charts
from lratlas.atlas import Atlas
from lratlas.errors import SpecError, TaskError
from lratlas.report.figures import figure_svg
from study.running import printed_by

SMALL = "No learning rate changed the loss: all are too small. Test larger ones."
TABLES = ("runs", "regimes", "pairs", "sharpness", "claims")
EVERYTHING: dict[str, Any] = {
    "finetune": {"lrs": [1e-3, 1e-2], "epochs": 1},
    "average": {"counts": [2], "every": 2},
    "measure": {"sharpness": True, "norms": True, "great_circle": True, "interpolation": 3},
}


def linear(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs))


def regression(**changes: Any) -> Task:
    """The mean of an image of 4 x 4, as a number."""
    x = torch.randn(48, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = x.mean((1, 2, 3))[:, None] + 1
    given: dict[str, Any] = {
        "batch_size": 8,
        "model": partial(linear, 16, 1),
        "loss": "mse",
        "train": (x[:32], y[:32]),
        "test": (x[32:], y[32:]),
    }
    return Task(**(given | changes))


def classes(**changes: Any) -> Task:
    """Three classes of images of 4 x 4, at random."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(48, 1, 4, 4, generator=draw), torch.randint(3, (48,), generator=draw)
    given: dict[str, Any] = {
        "batch_size": 8,
        "model": partial(linear, 16, 3),
        "train": (x[:32], y[:32]),
        "test": (x[32:], y[32:]),
    }
    return Task(**(given | changes))


def squares_below_zero(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean() - 0.5


def entropy_below_zero(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets) - 5


def huge_squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return 1e12 * (outputs - targets).square().mean()


def study(folder: Path, task: Task, lrs: list[float], *, repeats: int = 1, epochs: int = 2, **sections: Any) -> Atlas:
    """A study explored in this process; `read` draws its page."""
    pretrain: Any = {"lrs": lrs, "epochs": epochs, "repeats": repeats}
    training: Any = {"compile": False, "strategy": "stack"}
    with workerless(), undrawn():
        return lratlas.explore(
            task, folder=folder, pretrain=pretrain, training=training, notice=lambda _: None, **sections
        )


def read(atlas: Atlas) -> dict[str, Any]:
    """Read a study in every way there is; what ``lratlas status --json`` prints."""
    folder = atlas.folder
    found = draw_charts(atlas)
    assert set(found.missing) <= {"accuracy", "last_tenth", "loss", "geometry", "sharpness", "norms"}
    with unfigured(), patch("lratlas.api.report.draw_charts", return_value=found):
        page = Path(atlas.write_report()).read_text(encoding="utf-8")
    assert all("<script" in html for html in (page, compare([atlas]).html()))
    for name in TABLES:
        assert json.loads(printed_by("show", folder, name, "--format", "json")) == [] or len(atlas.table(name))
    texts = [printed_by("show", folder, "regimes"), printed_by("status", folder), printed_by("compare", folder)]
    texts += atlas.summary
    assert not [text for text in texts if re.search(r"\bNone\b|\bnan\b", text)]
    return json.loads(printed_by("status", folder, "--json"))


def test_images_with_a_target_that_is_a_number(tmp_path: Path):
    atlas = study(tmp_path / "study", regression(), [1e-9, 0.01, 0.1], repeats=3, epochs=8, **EVERYTHING)
    assert atlas.plan
    assert (atlas.plan.measuring("bands"), atlas.plan.measuring("features")) == ((), ())
    runs = atlas.table("runs")
    for column in ("train_accuracy", "test_accuracy"):
        assert runs[column].null_count() == runs.height
    assert atlas.regimes["regime"].to_list()[0] == "undecided"
    assert atlas.regimes["reason"].to_list()[0] == "has not moved"
    advised = atlas.recommendation
    assert advised
    assert advised.metric == "test_loss"
    finished = runs.filter((runs["flr"] == 1e-3) | (runs["stage"] == "average"))
    means = finished.group_by("plr", "stage").agg(pl.col("test_loss").mean())
    assert advised.value == pytest.approx(means["test_loss"].min())
    assert {"loss", "geometry", "traces"} <= {*atlas.charts}
    assert not {"accuracy", "bands", "features"} & {*atlas.charts}
    said = " ".join(atlas.summary)
    assert "Too small: 1e-9; the loss has not changed from its start." in said
    assert "test loss" in said
    assert "accuracy" not in said
    claims = {row["claim"]: row["statement"] for row in read(atlas)["claims"]}
    assert claims["middle-band"] == claims["flr-matters"] == "The task has no accuracy."
    assert "<svg" in figure_svg(atlas.chart("loss"))
    assert "<svg" in figure_svg(atlas.chart("geometry"))
    page = (Path(atlas.folder) / "report.html").read_text()
    assert "Line chart of the test loss against the pre-training learning rate" in page
    assert "Line chart of the test accuracy" not in page


def test_what_needs_an_accuracy_is_refused_where_it_is_asked_for(tmp_path: Path):
    with pytest.raises(SpecError, match=r"`measure\.bands` names bands, but the task has no accuracy"):
        study(tmp_path / "bands", regression(), [0.1], measure={"bands": [[1, 2]]})
    with pytest.raises(SpecError, match=r"`measure\.convergence` is true, but it needs class labels"):
        study(tmp_path / "convergence", regression(), [0.1], measure={"convergence": True})


def test_features_are_not_measured_without_an_accuracy(tmp_path: Path):
    atlas = study(tmp_path / "study", regression(singles=(torch.zeros(2, 4, 1, 4, 4), torch.zeros(2, 4, 1))), [0.1])
    assert atlas.plan
    assert atlas.plan.measuring("features") == ()
    read(atlas)


@pytest.mark.parametrize("task", [regression, classes])
def test_every_lr_diverges(task: Callable[..., Task], tmp_path: Path):
    made = task(loss=huge_squares) if task is regression else task(model=lambda: Exploding(16, 3))
    atlas = study(tmp_path / "study", made, [1e6, 1e9, 1e12], epochs=6, **EVERYTHING)
    assert atlas.table("runs").filter(stage="pretrain")["diverged"].all()
    assert atlas.regimes["regime"].to_list() == ["3"] * 3
    assert atlas.boundaries["value"].to_list() == [None] * 3
    assert read(atlas)["recommendation"] is None


class Exploding(nn.Module):
    """Scores that grow with the cube of the weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inner = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(1)) ** 3


class Dead(nn.Module):
    """A model whose units are all off, so that no weight has a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x.flatten(1)) - 1000).relu()


def test_every_lr_is_at_chance(tmp_path: Path):
    atlas = study(tmp_path / "study", classes(model=Dead), [0.1, 1.0], repeats=2, **EVERYTHING)
    assert atlas.regimes["regime"].to_list() == ["3", "3"], "its gradient is zero, so it is not too slow"
    assert "predictions are no better than chance" in " ".join(atlas.summary)
    read(atlas)


@pytest.mark.parametrize(("task", "repeats"), [(regression, 1), (classes, 3)])
def test_every_lr_is_too_small(task: Callable[..., Task], repeats: int, tmp_path: Path):
    atlas = study(tmp_path / "study", task(), [1e-12, 1e-11, 1e-10], repeats=repeats, **EVERYTHING)
    pretrained = atlas.table("runs").filter(stage="pretrain")
    assert pretrained["start_loss"].to_list() == pytest.approx(pretrained["test_loss"].to_list(), rel=1e-5)
    others = atlas.table("runs").filter(atlas.table("runs")["stage"] != "pretrain")
    assert others["start_loss"].null_count() == others.height
    small = atlas.regimes.filter(reason="has not moved")
    assert small["regime"].to_list() == ["undecided"] * 3
    assert atlas.boundaries["value"].to_list() == [None] * 3
    assert atlas.summary == [SMALL]
    status = read(atlas)
    assert status["recommendation"] is None
    assert {row["statement"] for row in status["claims"]} == {SMALL}
    assert "undecided (has not moved): 1e-12 to 1e-10" in atlas.regimes_in_short
    page = (Path(atlas.folder) / "report.html").read_text()
    assert SMALL in page
    assert "has not moved" in page


class Pretrained(nn.Module):
    """A linear model that starts at given weights."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


@pytest.mark.parametrize(
    ("scale", "wrong", "found"), [(1, 0.5, ("undecided", "has not moved")), (1000, 0, ("1", None))]
)
@pytest.mark.parametrize("repeats", [1, 3])
def test_a_model_that_starts_above_chance_has_moved_only_if_it_was_trained(
    tmp_path: Path, scale: float, wrong: float, found: tuple[str, str | None], repeats: int
):
    task = classes()
    weight = scale * torch.randn(16, 3, generator=torch.Generator().manual_seed(1))

    def labelled(pair: Any) -> tuple[Tensor, Tensor]:
        x, y = pair
        right = (x.flatten(1) @ weight).argmax(1)
        return x, torch.where(torch.arange(len(y)) < wrong * len(y), y, right)

    task = classes(model=partial(Pretrained, weight), train=labelled(task.train), test=labelled(task.test))
    atlas = study(tmp_path / "study", task, [1e-12, 1e-11, 1e-10], repeats=repeats)
    assert atlas.table("traces")["train_accuracy"].mean() > 0.6, "chance is a third"  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
    assert atlas.regimes.select("regime", "reason").rows() == [found] * 3


def test_the_start_loss_is_that_before_training_at_any_lr(tmp_path: Path):
    atlas = study(tmp_path / "study", classes(), [1e-30, 0.1], repeats=2)
    runs = atlas.table("runs").sort("seed", "plr")
    unmoved = [loss for lr, loss in runs.select("plr", "test_loss").iter_rows() if lr < 1e-9 for _ in range(2)]
    assert runs["start_loss"].to_list() == pytest.approx(unmoved, rel=1e-6)
    assert len(set(unmoved)) == 2, "each seed has its own initial weights"


@pytest.mark.parametrize(("task", "sections"), [(regression, EVERYTHING), (classes, {}), (classes, EVERYTHING)])
def test_a_single_lr_of_a_single_seed(task: Callable[..., Task], sections: dict[str, Any], tmp_path: Path):
    atlas = study(tmp_path / "study", task(), [0.1], **sections)
    assert len(atlas.regimes) == 1
    read(atlas)


def test_losses_below_zero_with_labels(tmp_path: Path):
    made = {name: classes(loss=loss) for name, loss in (("below", entropy_below_zero), ("usual", "cross_entropy"))}
    found = {name: study(tmp_path / name, task, [1e-9, 0.1, 1e6], epochs=8) for name, task in made.items()}
    labels = {name: atlas.regimes["regime"].to_list() for name, atlas in found.items()}
    assert labels["below"] == labels["usual"]
    assert found["below"].table("runs")["train_loss"].min() < 0  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
    read(found["below"])


def test_losses_below_zero_without_labels(tmp_path: Path):
    sections: dict[str, Any] = EVERYTHING | {"trace": {"points": 40}}
    atlas = study(tmp_path / "study", regression(loss=squares_below_zero), [0.01, 0.05], epochs=40, **sections)
    assert atlas.table("traces")["train_loss"].min() < -0.1  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
    assert "1" not in atlas.regimes["regime"].to_list()
    assert "losses below 0" in atlas.regimes["reason"].to_list()
    assert "Add a constant to the loss so that a perfect fit has loss 0." in " ".join(atlas.summary)
    read(atlas)
    below = regression(train=(torch.zeros(32, 1, 4, 4), torch.zeros(32, 1)), loss=squares_below_zero)
    with pytest.raises(TaskError, match="add a constant to the loss, so that a perfect fit has loss 0"):
        study(tmp_path / "refused", below, [0.1])


def test_very_large_losses(tmp_path: Path):
    atlas = study(tmp_path / "study", regression(loss=huge_squares), [1e-14, 1e-13, 3e-12], epochs=4, **EVERYTHING)
    assert atlas.table("runs")["test_loss"].max() > 1e11  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
    read(atlas)
