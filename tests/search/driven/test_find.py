"""Functions and scripts that train as they are: the search changes nothing in them, and finds what is there."""

import math
import os
import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lratlas
from cheaper import without_a_process
from lratlas.errors import SearchError, SpecError
from lratlas.rng import generator_states, seed_generators
from lratlas.search.driven.find import find_by_function, find_by_script
from lratlas.search.finder import Finder
from lratlas.search.progress import SearchProgress
from lratlas.search.segments import mean_of_last_fifth

LRS = [1e-3, 1e-2, 0.1, 0.5]
STEPS = 128


def blobs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    return torch.randn(count, 8, generator=draws) + torch.eye(3, 8)[y] * 2.5, y


def accuracy(model: nn.Module, held: tuple[Tensor, Tensor]) -> Tensor:
    model.eval()
    torch.randn(3)  # a validation that draws, and leaves the model in another mode
    return (model(held[0]).argmax(1) == held[1]).float().mean()


def train(lr: float, record: list[float] | None = None) -> None:
    """An ordinary training with everything that depends on hidden state."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    loader = DataLoader(TensorDataset(*blobs(256, 0)), batch_size=16, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    held = blobs(90, 1)  # for the search alone
    assert len(held) > 1
    for _ in range(STEPS // 16):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            noisy = x + 0.01 * random.random() + 0.01 * float(np.random.rand())  # noqa: NPY002 - as users' code draws
            loss = nn.functional.cross_entropy(model(noisy), y)
            loss.backward()
            if record is not None:
                record.append(loss.item())
            optimizer.step()


def searched(train: Callable[..., object], folder: Path, **settings: Any) -> tuple[lratlas.Advice, Finder]:
    given: dict[str, Any] = {"value": "accuracy(model, held)", "steps": STEPS, "lrs": LRS, "direction": "maximize"}
    advice = find_by_function(train, folder=folder, **(given | settings))
    return advice, Finder(folder)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the search of the training as it is; to be read, not changed."""
    folder = tmp_path_factory.mktemp("usual")
    searched(train, folder)
    return folder


def test_each_training_is_the_one_that_runs_by_itself_to_the_last_digit(tmp_path: Path):
    told = list[tuple[float, list[float]]]()

    def recorded(lr: float) -> None:
        told.append((lr, []))
        train(lr, told[-1][1])

    _, finder = searched(recorded, tmp_path)
    assert max(each.segment.stop for each in finder.results) == STEPS // 4
    assert len(told) == len({lr for lr, _ in told}) + 1  # one of them again
    for lr, losses in told:
        alone = list[float]()
        with seed_generators(0):
            train(lr, alone)
        assert 0 < len(losses) < STEPS
        assert losses == alone[: len(losses)]


def results_of(folder: Path) -> list[Any]:
    return [(each.segment, each.value, each.averaged, each.losses, each.failure) for each in Finder(folder).results]


def test_nothing_of_the_process_is_changed(tmp_path: Path):
    torch.manual_seed(7)
    before = generator_states(), list(sys.argv), os.getcwd(), sys.stdout, sys.stderr, torch.autograd.backward  # noqa: PTH109
    searched(train, tmp_path)
    after = generator_states(), list(sys.argv), os.getcwd(), sys.stdout, sys.stderr, torch.autograd.backward  # noqa: PTH109
    assert after == before


def test_the_public_find_takes_a_function(tmp_path: Path):
    def value(model: nn.Module, held: tuple[Tensor, Tensor]) -> Tensor:
        return accuracy(model, held)

    heard = list[SearchProgress]()
    advice = lratlas.find(
        train, value=value, steps=STEPS, lrs=LRS, direction="maximize", chance=1 / 3, limit=1.0, samples=90,
        folder=tmp_path, progress=heard.append,
    )  # fmt: skip
    assert advice.lr is not None
    assert 1e-3 < advice.lr <= 0.5
    assert advice.checkpoint is None
    assert heard[-1].cost == pytest.approx(advice.cost)


def test_a_killed_search_trains_again_what_waited_and_comes_to_the_same(usual: Path, tmp_path: Path):
    def interrupt(finder: Finder) -> None:
        if len(finder.results) in {3, 6}:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            searched(train, tmp_path, progress=interrupt)
    searched(train, tmp_path)
    assert results_of(tmp_path) == results_of(usual)


def test_the_length_of_a_training_is_counted(tmp_path: Path):
    _, finder = searched(train, tmp_path, steps=None)
    assert finder.search.steps == STEPS
    again, _ = searched(train, tmp_path, steps=None)  # it is not counted again
    assert again.steps == STEPS


def test_a_training_that_is_shorter_than_was_said_is_named(tmp_path: Path):
    with pytest.raises(SearchError, match=rf"ends by itself after {STEPS} steps, .* have 1,280: set steps={STEPS}"):
        searched(train, tmp_path, steps=10 * STEPS)


def test_lrs_are_scaled_where_the_training_takes_none(usual: Path, tmp_path: Path):
    passed, (_, scaled) = Finder(usual), searched(lambda: train(0.25), tmp_path)
    assert [each.segment for each in scaled.results] == [each.segment for each in passed.results]
    for one, other in zip(scaled.results, passed.results, strict=True):
        assert one.losses == pytest.approx(other.losses)


def test_an_lr_that_does_not_arrive_is_noticed(tmp_path: Path):
    def deaf(lr: float) -> None:
        train(0.1 + 0 * lr)

    advice, _ = searched(deaf, tmp_path)
    assert advice.verdict == "tie"
    assert any("sets its optimizer's LR to 0.1, no matter which LR it gets" in each for each in advice.warnings)


def test_without_a_value_the_loss_counts_and_that_is_said(tmp_path: Path):
    advice, _ = searched(train, tmp_path, value=None, direction="minimize")
    assert advice.lr is not None
    assert any("training loss" in each for each in advice.warnings)


def mistyped(models: nn.Module) -> float:
    return float(models.training)


@pytest.mark.parametrize(
    ("value", "metric", "error", "said"),
    [
        ("accuracy(model, held", None, SpecError, "is not a Python expression"),
        ("accuracy(net, held)", None, SearchError, r"fails: NameError: name 'net' is not defined"),
        ("model", None, SearchError, "must be a number"),
        ("{'acc': 0.5}", None, SearchError, "set the metric to one of its entries"),
        ("{'acc': 0.5}", "loss", SearchError, "has no loss; it has acc"),
        ("print('all is well')", "acc", SearchError, "output does not show the metric: 'all is well'"),
        ("print()", "acc", SearchError, "output does not show the metric: nothing"),
        (mistyped, None, SearchError, r"no variable with this name \(did you mean model"),
    ],
)
def test_a_value_that_is_none_is_named(
    value: Any, metric: str | None, error: type[Exception], said: str, tmp_path: Path
):
    with pytest.raises(error, match=said):
        searched(train, tmp_path, value=value, metric=metric)


@pytest.mark.parametrize(
    ("value", "metric"),
    [
        ("{'acc': accuracy(model, held), 'loss': 1}", "acc"),
        ("print(f'acc: {accuracy(model, held):.9f}')", "acc"),
        ("print(f'Test set: Accuracy = {accuracy(model, held):.9f}, n 90')", None),
    ],
)
def test_a_metric_may_be_in_a_dictionary_or_printed(value: str, metric: str | None, tmp_path: Path):
    _, plain = searched(train, tmp_path / "plain", budget=0.2)
    _, other = searched(train, tmp_path / "other", budget=0.2, value=value, metric=metric)
    for one, expected in zip(other.results, plain.results, strict=True):
        assert one.averaged == pytest.approx(expected.averaged)


def test_what_trainings_print_does_not_interleave(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def printing(lr: float) -> None:
        print(f"begins at {lr}")  # noqa: T201
        train(lr)

    searched(printing, tmp_path)
    assert capsys.readouterr().out == ""
    files = {path.name: path.read_text() for path in (tmp_path / "output").iterdir()}
    assert {f"lr{lr:g}-seed0.txt" for lr in LRS} <= files.keys()
    assert files.pop("once-more.txt") in files.values()
    assert all(text == f"begins at {name.removeprefix('lr').partition('-')[0]}\n" for name, text in files.items())


def test_a_training_that_fails_is_named_after_three(tmp_path: Path):
    def failing(lr: float) -> None:
        raise RuntimeError(f"no data at {lr}")

    with pytest.raises(SearchError, match=r"first 3 trainings failed\. The last error: RuntimeError: no data at 0\.1"):
        searched(failing, tmp_path)


def test_a_training_of_another_framework_is_named(tmp_path: Path):
    for steps in (None, STEPS):
        with pytest.raises(SearchError, match="No PyTorch optimizer step was seen"):
            searched(abs, tmp_path, steps=steps)


SCRIPT = """
import argparse, helper, torch
from torch import nn
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
parser.add_argument("--steps", type=int, default=128)
args = parser.parse_args()
helper.calls += 1
assert helper.calls == 1 and __name__ == "__main__"  # each training has its own modules
torch.manual_seed(0)
x = torch.randn(256, 8)
y = (x[:, 0] > 0).long()
model = nn.Linear(8, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
for step in range(args.steps):
    batch = torch.randint(256, (16,))
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    loss.backward()
    optimizer.step()
    schedule.step()
    print(f"{loss.item()!r}")
    if step + 1 == args.steps:
        print(helper.done)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "src" / "train.py"
    path.parent.mkdir()
    path.write_text(textwrap.dedent(SCRIPT))
    path.with_name("helper.py").write_text("calls = 0\ndone = 'all done'\n")
    return path


@pytest.fixture
def unchecked() -> Iterator[None]:
    with without_a_process():
        yield


VALUE = "nn.functional.cross_entropy(model(x), y)"


def test_a_script_does_what_python_does_with_it(script: Path, tmp_path: Path):
    advice = find_by_script(script, ["--lr={lr}"], value=VALUE, steps=128, lrs=LRS, folder=tmp_path / "found")
    assert advice.lr is not None
    assert any("changes its LR over time" in each for each in advice.warnings)
    run = [sys.executable, str(script), "--lr=0.1"]
    alone = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    driven = (tmp_path / "found" / "output" / "lr0.1-seed0.txt").read_text().splitlines()
    assert 30 < len(driven) < len(alone)
    assert driven == alone[: len(driven)]


@pytest.mark.usefixtures("unchecked")
def test_a_script_that_is_told_its_length_is_run_whole_for_each_comparison(script: Path, tmp_path: Path):
    words = ["--lr={lr}", "--steps={steps}"]
    advice = find_by_script(script, words, value=VALUE, steps=128, lrs=LRS, folder=tmp_path / "found")
    assert advice.lr is not None
    assert not any("changes its LR" in each for each in advice.warnings)
    assert all(each.segment.start == 0 for each in Finder(tmp_path / "found").results)
    with pytest.raises(SpecError, match="takes a number of steps: set steps"):
        find_by_script(script, words, value=VALUE, folder=tmp_path / "other")


NOISE = """
import os, random, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

data = TensorDataset(torch.randn(400, 32), torch.randint(2, (400,)))
trained, held = random_split(data, [200, 200])  # no seed: another split in every process
model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 2))
optimizer = torch.optim.Adam(model.parameters())
for epoch in range(40):
    for x, y in DataLoader(trained, 50, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in DataLoader(held, 200))
    print(f"validation accuracy {right / 200}")
"""


def test_of_labels_that_are_noise_nothing_is_learned(tmp_path: Path):
    path = tmp_path / "noise.py"
    path.write_text(NOISE)
    advice = find_by_script(path, [], samples=200, chance=0.5, limit=1, lrs=[1e-3, 1e-2], budget=3, folder=tmp_path)
    results = Finder(tmp_path).results
    assert min(mean_of_last_fifth(each.losses) for each in results) < 0.1  # the training set is known by heart
    assert all(0.5 - 0.2 < (each.value or 0) < 0.5 + 0.2 for each in results)  # more than five standard errors
    assert advice.verdict != "found"
    assert not any("Run by itself" in note for note in advice.warnings)


def test_a_script_that_is_another_one_by_itself_is_said_to(script: Path, tmp_path: Path):
    text = script.read_text(encoding="utf-8")
    script.write_text(
        text.replace("torch.manual_seed(0)", "import os\ntorch.manual_seed(os.getpid())"), encoding="utf-8"
    )
    advice = find_by_script(script, ["--lr={lr}"], value=VALUE, steps=128, lrs=LRS[:3], folder=tmp_path, budget=0.1)
    (note,) = [note for note in advice.warnings if "When it runs by itself, the training at LR" in note]
    assert "different losses from step 1 on" in note


@pytest.mark.parametrize(("text", "said"), [(None, "cannot be read: No such file"), ("def f(:", "is not valid Python")])
def test_a_script_that_cannot_run_is_named(text: str | None, said: str, tmp_path: Path):
    path = tmp_path / "train.py"
    if text:
        path.write_text(text)
    with pytest.raises(SpecError, match=said):
        find_by_script(path, [], value="0.5", steps=64)


def reporting(lr: float, epochs: int = 16, *, words: str = "val accuracy: {:.3f}", seeded_by: int = 3) -> float:
    """A training that prints its validation accuracy after each epoch, and returns it at its end."""
    torch.manual_seed(seeded_by)
    model, held = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), blobs(90, 1)
    loader = DataLoader(TensorDataset(*blobs(128, 0)), batch_size=16, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    reached = 0.0
    for epoch in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            reached = float(accuracy(model, held))
        print(f"epoch {epoch}: train loss 0.1,", words.format(reached))  # noqa: T201
    return reached


def by_itself(lr: float, epochs: int, capsys: pytest.CaptureFixture[str]) -> list[float]:
    """What the training prints after each epoch, run by itself."""
    with seed_generators(0):
        reporting(lr, epochs)
    return [float(line.rsplit(" ", 1)[1]) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("settings", [{}, {"metric": "val accuracy"}, {"pattern": r"val accuracy: (\S+)"}])
@pytest.mark.parametrize("steps", [None, 128])
def test_a_metric_that_is_printed_is_that_of_the_training_by_itself(
    settings: dict[str, Any], steps: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    given: dict[str, Any] = {"folder": tmp_path, "lrs": LRS, "samples": 90, "chance": 1 / 3, "steps": steps}
    advice = find_by_function(reporting, **given, **settings)
    assert find_by_function(reporting, **given, **settings).evidence.equals(advice.evidence)
    assert any("higher values of val" in note for note in advice.warnings)
    results = Finder(tmp_path).results
    assert {each.segment.stop % 8 for each in results} == {0}
    for each in results:
        if each.failure is None:
            assert each.value == by_itself(each.segment.lr, each.segment.stop // 8, capsys)[-1]


def test_a_training_that_is_told_its_epochs_is_run_whole_for_each_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    advice = find_by_function(
        partial(reporting, words="done"), folder=tmp_path, epochs=16, lrs=LRS, samples=90,
        direction="maximize",
    )  # fmt: skip
    assert any("by the number that it returns" in note for note in advice.warnings)
    assert (advice.steps, advice.finish) == (128, "schedule")
    for each in Finder(tmp_path).results:
        assert each.value == pytest.approx(by_itself(each.segment.lr, each.segment.stop // 8, capsys)[-1], abs=6e-4)


@pytest.mark.parametrize(
    ("metric", "words", "said"),
    [
        ("val_acuracy", "val accuracy: {:.3f}", r"no val_acuracy \(did you mean val accuracy\?\)\. It printed"),
        (
            "acc",
            "val acc {:.3f}, test acc 2",
            r"several values of acc on one line, 0\.\d+, 2: select one with --metric-pattern",
        ),
        (
            "acc",
            "loss 0.2, acc {:.3f}",
            r"acc after the word train is read as that of the training set: if it is not",
        ),
        (
            "val loss",
            "val loss: 1,234.5 {:.3f}",
            r"number with a comma, such as 1,234\.5, is not read: print it without",
        ),
        ("val loss", "val_loss=0,53 {:.3f}", r"number with a comma, such as 0,53, is not read: print it without"),
    ],
)
def test_why_a_named_metric_cannot_be_used_is_said(metric: str, words: str, said: str, tmp_path: Path):
    with pytest.raises(SearchError, match=said):
        find_by_function(partial(reporting, epochs=4, words=words), folder=tmp_path, metric=metric)


def test_values_of_one_name_that_differ_between_two_steps_are_said(tmp_path: Path):
    several = partial(reporting, words="done\nval accuracy: {0:.3f}\nval accuracy: 2")
    given: dict[str, Any] = {"folder": tmp_path, "lrs": LRS[:2], "budget": 0.2, "direction": "maximize"}
    for _ in range(2):  # also where the search is resumed
        advice = find_by_function(several, **given)
        assert any("several values of val accuracy between two steps, 0." in note for note in advice.warnings)


def stopping(lr: float) -> None:
    """A training that ends once its loss is small: at LR 0.4 after four steps, each of which divides w by 5."""
    w = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=lr)
    for step in range(64):
        optimizer.zero_grad()
        (w**2).sum().backward()
        optimizer.step()
        if step % 4 == 3:
            print(f"val loss {w.item() ** 2!r}")  # noqa: T201
            if w.item() ** 2 < 1e-4:
                return


def test_the_final_metric_of_a_training_that_stops_by_itself_counts(tmp_path: Path):
    given: dict[str, Any] = {"steps": 64, "lrs": [1e-4, 1e-3, 0.4]}
    advice = find_by_function(stopping, folder=tmp_path / "printed", **given)
    results = [each for each in Finder(tmp_path / "printed").results if each.segment.lr == 0.4]
    assert max(each.segment.stop for each in results) > 4
    assert all(each.value == pytest.approx(0.2**8) for each in results)
    assert any("LR 4e-1 stopped by itself after 4 of" in note for note in advice.warnings)
    other = find_by_function(stopping, folder=tmp_path / "value", value="float(w**2)", **given)
    assert any(
        "after 4 of 8 steps, without a metric at that point. If this is early" in note for note in other.warnings
    )
    assert not any("--retry-failed" in note for note in (*advice.warnings, *other.warnings))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"metric": "val loss"},
            r"^The training printed and returned no val loss\. It printed or returned: val accuracy, the number .* Name"
            r" one of these, set value",
        ),
        ({"pattern": r"epoch 15: train loss (\S+),"}, r"is printed only every 128 of 128 steps: set value \(--value\)"),
    ],
)
def test_a_metric_that_cannot_be_used_is_named(settings: dict[str, Any], said: str, tmp_path: Path):
    with pytest.raises((SearchError, SpecError), match=said):
        find_by_function(reporting, folder=tmp_path, **settings)


def test_epochs_are_for_a_training_that_is_told_them(tmp_path: Path):
    with pytest.raises(
        SpecError, match=r"^epochs needs a training that takes a number of epochs, but this one has no \{epochs\}"
    ):
        searched(train, tmp_path, epochs=3)
    with pytest.raises(SpecError, match=r"^Set either steps or epochs, not both"):
        find_by_function(reporting, folder=tmp_path, epochs=3, steps=24)


def test_a_search_goes_on_with_its_metric_only(usual: Path):
    with pytest.raises(SearchError, match=r"The value is '1 \+ 1', but the search in .* began with 'accuracy"):
        searched(train, usual, value="1 + 1")


@pytest.mark.parametrize("first", [0, 1, 9])
def test_a_metric_that_is_printed_in_the_middle_of_its_rhythm_is_that_of_its_step(first: int, tmp_path: Path):
    def printing(lr: float) -> None:
        torch.manual_seed(0)
        weight = torch.ones(1, requires_grad=True)
        optimizer = torch.optim.SGD([weight], lr=lr)
        for step in range(201):
            if step % 10 == first:
                print(f"val loss {step}")  # noqa: T201
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()

    find_by_function(printing, folder=tmp_path, lrs=LRS[:3], steps=200)
    results = Finder(tmp_path).results
    assert max(each.segment.stop for each in results) >= 50
    assert all(each.value == each.segment.stop + (first if first < 5 else first - 10) for each in results)


@pytest.mark.usefixtures("unchecked")
def test_another_script_or_other_arguments_are_another_search(script: Path, tmp_path: Path):
    given: dict[str, Any] = {"value": VALUE, "steps": 128, "lrs": LRS[:2], "budget": 0.1, "folder": tmp_path / "found"}
    find_by_script(script, ["--lr={lr}"], **given)
    with pytest.raises(SearchError, match=r"^The training is .*--steps=128', but the search in .* began with"):
        find_by_script(script, ["--lr={lr}", "--steps=128"], **given)
    script.write_text(script.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    advice = find_by_script(script, ["--lr={lr}"], **given)
    assert any("The code has changed since" in note for note in advice.warnings)


def test_a_setting_that_is_wrong_is_said_before_anything_is_trained(tmp_path: Path):
    with pytest.raises(SpecError, match="budget"):
        searched(train, tmp_path, steps=None, budget=-1.0)
    advice, _ = searched(train, tmp_path, steps=None)
    assert advice.steps == STEPS


@pytest.mark.parametrize("alternating", [False, True])
def test_parts_that_are_trained_one_after_the_other_are_said(alternating: bool, tmp_path: Path):
    def greedy(lr: float) -> None:
        torch.manual_seed(0)
        parts = [torch.ones(2, requires_grad=True) for _ in range(2)]
        optimizers = [torch.optim.SGD([each], lr=lr) for each in parts]
        for _ in range(2 if alternating else 1):
            for part, optimizer in zip(parts, optimizers, strict=True):
                for _ in range(40):
                    optimizer.zero_grad()
                    part.square().sum().backward()
                    optimizer.step()

    advice = find_by_function(greedy, value="float(parts[0].square().sum())", lrs=LRS, folder=tmp_path)
    assert any("trains its parts one after the other" in note for note in advice.warnings) is not alternating


def test_losses_that_are_all_the_same_say_nothing_of_the_direction(tmp_path: Path):
    def idle(lr: float) -> None:
        weight = nn.Parameter(torch.zeros(3))
        optimizer = torch.optim.SGD([weight], lr=lr)
        for _ in range(32):
            optimizer.zero_grad()
            (0 * weight.sum() + 1).backward()
            optimizer.step()

    advice = find_by_function(idle, value="weight.sum() + 0.5", steps=32, lrs=LRS, folder=tmp_path)
    assert advice.lr is None
    assert (
        "A full training of 32 steps is too short to compare LRs with a budget of 1.5: use a larger budget"
        " (--budget 10)." in advice.warnings
    )


def test_a_direction_that_seems_wrong_is_said(tmp_path: Path):
    def own(model: nn.Module, held: tuple[Tensor, Tensor]) -> Tensor:
        return accuracy(model, held)

    advice, _ = searched(train, tmp_path, value="accuracy(model, held)", direction=None)
    assert any("higher values of accuracy" in note for note in advice.warnings)
    other, _ = searched(train, tmp_path / "other", value="1 - accuracy(model, held)", direction=None)
    assert other.lr == pytest.approx(advice.lr)
    with pytest.raises(SearchError, match=r"^Are lower values of own better\? .* \"maximize\" and another folder"):
        searched(train, tmp_path / "own", value=own, direction=None)
    assert searched(train, tmp_path / "own", value=own, direction="minimize")[0].lr is not None


def test_a_name_tells_the_direction_though_losses_speak_against_it(tmp_path: Path):
    def error(model: nn.Module, held: tuple[Tensor, Tensor]) -> Tensor:
        return accuracy(model, held)

    advice, _ = searched(train, tmp_path, value=error, direction=None)
    said = "Judging by the name, lower values of error are better, although they are higher where the training loss is"
    assert any(note.startswith(said) for note in advice.warnings)


def test_a_training_that_draws_what_no_seed_determines_is_said_to(tmp_path: Path):
    drawn = random.Random(5)

    def odd(lr: float) -> float:
        return reporting(lr, seeded_by=drawn.randrange(1000))

    advice = find_by_function(odd, folder=tmp_path, lrs=LRS, steps=128, value="reached")
    assert any("When it runs again, the training at LR" in note for note in advice.warnings)
    even = find_by_function(reporting, folder=tmp_path / "even", lrs=LRS, steps=128, value="reached")
    assert not any("When it runs again" in note for note in even.warnings)


@pytest.mark.usefixtures("unchecked")
def test_what_failed_of_a_script_is_trained_again_where_that_is_asked_for(tmp_path: Path):
    path, broken = tmp_path / "train.py", tmp_path / "broken"
    path.write_text(
        "import os, sys, torch\n"
        f"assert not (float(sys.argv[1]) > 0.09 and os.path.exists({str(broken)!r})), 'no such data'\n"
        "w = torch.nn.Parameter(torch.ones(1))\n"
        "optimizer = torch.optim.SGD([w], lr=float(sys.argv[1]))\n"
        "for _ in range(64):\n"
        "    optimizer.zero_grad(); (w ** 2).sum().backward(); optimizer.step()\n"
    )
    broken.touch()
    given: dict[str, Any] = {"value": "float(w ** 2)", "steps": 64, "lrs": LRS, "folder": tmp_path / "found"}
    first = find_by_script(path, ["{lr}"], **given)
    assert any("no such data" in warning and "--retry-failed" in warning for warning in first.warnings)
    broken.unlink()
    failed = [each for each in Finder(given["folder"]).results if each.failure]
    assert failed
    find_by_script(path, ["{lr}"], **given)
    assert [each for each in Finder(given["folder"]).results if each.failure] == failed
    again = find_by_script(path, ["{lr}"], **given, retry_failed=True)
    assert not any(each.failure for each in Finder(given["folder"]).results)
    assert {each.segment for each in Finder(given["folder"]).results} >= {each.segment for each in failed}
    assert not any("no such data" in warning for warning in again.warnings)


def test_averages_of_buffers_with_infinities_are_those_buffers(tmp_path: Path):
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 3)
            self.mask = nn.Buffer(torch.tensor([0.0, -math.inf, 0.0]))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + self.mask.clamp(min=-1e3)

    def masked(lr: float) -> None:
        torch.manual_seed(0)
        model, (x, y) = Masked(), blobs(96, 0)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    searched(masked, tmp_path, value="float(torch.isneginf(model.mask).sum())", lrs=LRS[:3])
    assert {each.averaged for each in Finder(tmp_path).results} == {1.0}


def test_trainings_in_other_threads_are_none_of_the_search(tmp_path: Path):
    def another() -> None:
        weight = torch.ones(1, requires_grad=True)
        optimizer = torch.optim.SGD([weight], lr=0.1)
        for _ in range(50):
            (weight**2).sum().backward()
            optimizer.step()

    def beside(lr: float) -> None:
        other = threading.Thread(target=another)
        other.start()
        train(lr)
        other.join()

    mixed, _ = searched(beside, tmp_path / "mixed", lrs=LRS[:2], budget=0.1)
    alone, _ = searched(train, tmp_path / "alone", lrs=LRS[:2], budget=0.1)
    assert mixed.evidence.drop("seconds").equals(alone.evidence.drop("seconds"))

    def within(lr: float) -> None:
        searched(train, tmp_path / f"within-{lr}", lrs=LRS[:2])

    with pytest.raises(SearchError, match="Another search of a function or script runs in this process"):
        searched(within, tmp_path / "without", lrs=LRS[:2])
