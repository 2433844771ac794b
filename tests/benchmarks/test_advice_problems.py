"""The problems of the advice benchmark and their oracle: resumable, split cleanly, and measured as by hand."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from benchmarks.advice import data, finetuning, oracle
from benchmarks.advice.measuring import FINISHES, HORIZONS, RUNS, TRACES, measure
from benchmarks.advice.problem import Problem, as_task, batches, chance
from benchmarks.advice.problems import PROBLEMS, problem_named
from benchmarks.advice.summary import bests, lines
from benchmarks.advice.training import (
    Average,
    Run,
    advance,
    anneal,
    evaluate,
    evaluate_average,
    merged,
    restore,
    snapshot,
    start,
)
from data.makers import cifar10_files, idx_files, random_images, write_folder
from lratlas.training.prepared import make_model
from small_problems import line

LR = 0.05


@pytest.fixture(scope="module")
def made_up_images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Random images instead of the two image data sets."""
    root = tmp_path_factory.mktemp("data")
    images = random_images(20_000, 28, 28)
    write_folder(root / "fashion-mnist", idx_files(images, [k % 10 for k in range(20_000)], train=12_000))
    images = random_images(15_000, 3, 32, 32)
    write_folder(root / "cifar-10-batches-bin", cifar10_files(images, [k % 10 for k in range(15_000)]))
    forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRATLAS_DATA", str(root))
        yield
    forget()


def forget() -> None:
    data.read_once.cache_clear()
    finetuning.body.cache_clear()
    problem_named.cache_clear()


def regression(**changes: object) -> Problem:
    """The small regression with momentum, and an LR that diverges."""
    return line(rule={"name": "sgd", "momentum": 0.9}, lrs=(LR, 1e30), **changes)


def by_hand(problem: Problem, lrs: list[float]) -> list[Tensor]:
    """Weights and bias [4] after each step of gradient descent with momentum, from the formulas."""
    model = problem.make_model(1)
    assert isinstance(model, nn.Linear)
    w = torch.cat([model.weight.detach().flatten(), model.bias.detach()]).double()
    velocity, found = torch.zeros(4).double(), list[Tensor]()
    for lr, (x, y) in zip(lrs, batches(problem, seed=1, start=0, stop=len(lrs)), strict=True):
        ones = torch.cat([x, torch.ones(len(x), 1)], 1).double()
        gradient = 2 * ones.T @ (ones @ w - y.flatten().double()) / len(x)
        velocity = 0.9 * velocity + gradient
        w = w - lr * velocity
        found.append(w)
    return found


def mse(w: Tensor, pair: tuple[Tensor, Tensor]) -> float:
    x, y = pair
    return float((x.double() @ w[:3, None] + w[3] - y).square().mean())


def weights(run: Run) -> Tensor:
    return torch.cat([value.detach().flatten() for value in run.model.parameters()])


@pytest.mark.usefixtures("made_up_images")
def test_every_problem_trains_on_parts_that_do_not_overlap() -> None:
    assert len(PROBLEMS) >= 12
    for name in PROBLEMS:
        problem = problem_named(name)
        assert problem.name == name
        assert len(problem.lrs) <= 20
        assert max(problem.lrs) / min(problem.lrs) > 300
        assert min(abs(lr - problem.default_lr) for lr in problem.lrs) < 1e-9
        if name != "transformer":  # whose text has the same phrases in several topics
            rows = [row.tobytes() for pair in vars(problem.split).values() for row in pair[0].numpy()]
            # Digits and diamonds have a few twins.
            assert len(set(rows)) > 0.97 * len(rows), name
        run = start(problem, seed=0, lr=problem.default_lr)
        trace = advance(run, 1)
        assert run.step == 1
        assert not run.diverged
        assert math.isfinite(float(trace.losses[0]))
        floor = chance(problem, problem.split.test)
        assert (8 < floor < 50) if problem.higher_is_better else floor > 0


@pytest.mark.usefixtures("made_up_images")
def test_a_task_starts_with_the_same_weights_and_its_data() -> None:
    for name in ("digits-mlp", "resnet", "regression"):
        problem = problem_named(name)
        task = as_task(problem).prepared
        for own, other in zip(problem.make_model(3).parameters(), make_model(task, 3).parameters(), strict=True):
            assert torch.equal(own, other)
        assert task.validation is not None
        assert torch.equal(task.validation[0], problem.split.validation[0])
        assert task.update.name == problem.rule["name"]


def test_a_task_of_sequences_goes_by_the_validation_loss() -> None:
    problem = problem_named("gru")
    task = as_task(problem).prepared
    assert not task.objective.has_accuracy
    (x, y), (own_x, own_y) = task.train, problem.split.train
    assert isinstance(x, Tensor)
    assert isinstance(y, Tensor)
    with torch.no_grad():
        outputs = problem.make_model(0)(own_x[:4])
    assert torch.equal(x, own_x)
    expected = problem.losses(outputs, own_y[:4]).mean()
    assert torch.allclose(task.objective.batch(outputs, y[:4]), expected)


def test_a_task_with_an_optimizer_that_ignores_its_lr_has_it_as_a_factory() -> None:
    problem = problem_named("no-effect")
    assert as_task(problem).prepared.update.name == "optimizer SelfTuned"
    ends = [measure(problem, lr=lr, seed=0, only={("anneal", 1.0)}).runs["test"].to_list() for lr in (1e-3, 1.0)]
    assert ends[0] == ends[1]


def test_the_text_is_followed_by_its_next_characters() -> None:
    split, characters = data.text(length=16, train=50, validation=20, test=20)
    for x, y in (split.train, split.validation, split.test):
        assert torch.equal(x[:, 1:], y[:, :-1])
        assert int(x.max()) < characters


@pytest.mark.usefixtures("made_up_images")
@pytest.mark.parametrize("in_validation", [False, True])
def test_the_asked_share_of_labels_is_wrong(in_validation: bool) -> None:
    taken = partial(data.images, "fashion-mnist", train=500, validation=100, test=50)
    right, wrong = taken(), taken(wrong=0.2, wrong_validation=in_validation)
    assert int((right.train[1] != wrong.train[1]).sum()) == 100
    assert int((right.validation[1] != wrong.validation[1]).sum()) == (20 if in_validation else 0)
    assert torch.equal(right.test[1], wrong.test[1])


def test_a_run_goes_on_from_any_step_as_if_it_had_not_stopped() -> None:
    problem = problem_named("digits-mlp")
    whole, parts = (start(problem, seed=2, lr=0.1) for _ in range(2))
    losses = advance(whole, 40, every=3).losses
    first = advance(parts, 17, every=3).losses
    kept = snapshot(parts)
    anneal(parts, 20)
    assert not torch.equal(weights(parts), weights(whole))
    restore(parts, kept)
    rest = advance(parts, 23, every=3).losses
    assert np.array_equal(losses, np.concatenate([first, rest]))
    assert torch.equal(weights(parts), weights(whole))
    assert parts.average.count == whole.average.count == 13
    for name, total in whole.average.total.items():
        assert torch.equal(total, parts.average.total[name])


def test_training_annealing_and_averaging_are_those_of_the_formulas() -> None:
    problem = regression()
    run = start(problem, seed=1, lr=LR)
    advance(run, 20)
    advance(run, 10, every=5)
    constant = by_hand(problem, [LR] * 30)
    assert torch.allclose(weights(run).double(), constant[-1], atol=1e-5)
    # Checkpoints after 25 and 30 steps.
    expected = mse((constant[24] + constant[29]) / 2, problem.split.test)
    assert evaluate_average(run, run.average).test == pytest.approx(expected, rel=1e-4)
    anneal(run, 10)
    annealed = by_hand(problem, [LR] * 30 + [LR * (1 - k / 10) for k in range(10)])
    assert torch.allclose(weights(run).double(), annealed[-1], atol=1e-5)
    assert evaluate(run).validation == pytest.approx(mse(annealed[-1], problem.split.validation), rel=1e-4)


def test_the_lr_grows_over_the_warmup() -> None:
    problem = regression(warmup=4)
    run = start(problem, seed=1, lr=LR)
    advance(run, 6)
    expected = by_hand(problem, [LR / 4, LR / 2, LR * 3 / 4, LR, LR, LR])
    assert torch.allclose(weights(run).double(), expected[-1], atol=1e-5)


def test_merged_averages_count_every_checkpoint() -> None:
    one = Average(count=1, total={"w": torch.tensor([1.0]).double()})
    two = Average(count=2, total={"w": torch.tensor([8.0]).double()})
    assert merged(one, Average(), two).mean()["w"].tolist() == [3]
    assert merged(Average(), Average()).count == 0


def test_averaged_weights_get_the_batch_norm_statistics_of_the_training_set() -> None:
    problem = regression(model=lambda: nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1)))
    run = start(problem, seed=0, lr=LR)
    advance(run, 7, every=7)
    x, _ = problem.split.train
    with torch.no_grad():
        linear, norm = run.model.children()
        assert isinstance(norm, nn.BatchNorm1d)
        # Three batches of ten, each counting the same.
        parts = [linear(part) for part in x.split(10)]
        mean, variance = (torch.stack([value(part) for part in parts]).mean() for value in (torch.mean, torch.var))
        scaled = (linear(problem.split.test[0]) - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias
        expected = float((scaled - problem.split.test[1]).square().mean())
    assert evaluate_average(run, run.average).test == pytest.approx(expected, rel=1e-4)
    assert evaluate(run).test != pytest.approx(expected, rel=1e-4)


def test_a_run_that_is_not_finite_ends_at_chance_level() -> None:
    problem = regression()
    run = start(problem, seed=0, lr=1e30)
    advance(run, 50, every=1)
    assert run.diverged
    assert run.step < 50
    stopped = run.step
    assert not len(advance(run, 5).losses)
    assert run.step == stopped
    mean = problem.split.train[1].mean()
    expected = float((problem.split.test[1] - mean).square().mean())
    for quality in (evaluate(run), evaluate_average(run, run.average)):
        assert quality.diverged
        assert quality.test == pytest.approx(expected, rel=1e-5)


def test_the_oracle_measures_each_finish_at_each_horizon() -> None:
    problem = regression()
    measured = measure(problem, lr=LR, seed=1)
    assert measured.runs.schema == RUNS
    assert measured.traces.schema == TRACES
    places = set(measured.runs.select("horizon", "finish").iter_rows())
    expected = {(h, f) for h in HORIZONS for f in FINISHES if f != "anneal" or h >= 1 / 16}
    assert places == expected
    steps = by_hand(problem, [LR] * 128)

    def test_metric(horizon: float, finish: str) -> float:
        return measured.runs.filter(horizon=horizon, finish=finish)["test"].item()

    # A horizon of 64 steps: the last tenth begins after step 58, the last quarter after step 48.
    for finish, begin in {"constant": 63, "average10": 58, "average25": 48, "average50": 32}.items():
        mean = torch.stack(steps[begin:64]).mean(0)
        assert test_metric(0.5, finish) == pytest.approx(mse(mean, problem.split.test), rel=1e-4)
    branch = by_hand(problem, [LR] * 51 + [LR * (1 - k / 13) for k in range(13)])
    assert test_metric(0.5, "anneal") == pytest.approx(mse(branch[-1], problem.split.test), rel=1e-4)
    assert measured.traces["share"].to_list() == [k / 64 for k in range(1, 65)]
    losses = advance(start(problem, seed=1, lr=LR), 128).losses
    assert measured.traces["train_loss"].to_list() == pytest.approx(losses.reshape(64, 2).mean(1).tolist())


def test_the_oracle_of_a_diverging_lr_is_all_chance() -> None:
    problem = regression()
    measured = measure(problem, lr=1e30, seed=0)
    assert measured.runs.filter(horizon=1)["diverged"].all()
    assert measured.runs.filter(horizon=1)["test"].unique().to_list() == [chance(problem, problem.split.test)]
    assert measured.traces["train_loss"][-1] is None


def test_what_was_computed_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = regression()
    monkeypatch.setattr(oracle, "problem_named", {"line": problem}.__getitem__)
    first = oracle.kept("line", LR, 0, tmp_path)
    monkeypatch.delattr(oracle, "measure")
    again = oracle.kept("line", LR, 0, tmp_path)
    assert again.runs.equals(first.runs)
    assert again.traces.equals(first.traces)
    folder = tmp_path / "results"
    oracle.add(folder, first)
    oracle.add(folder, first)
    table = oracle.read(folder, "oracle", RUNS)
    assert table.equals(first.runs)
    assert oracle.missing(problem, table) == [
        (lr, seed) for lr in (LR, 1e30) for seed in range(8) if (lr, seed) != (LR, 0)
    ]


def test_an_unknown_problem_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        oracle.main(["nothing"])
    assert "there is no problem nothing; choose from digits-mlp" in capsys.readouterr().err


def test_the_summary_names_the_best_lr_and_what_is_nearly_as_good() -> None:
    accuracy = {0.01: [70.0, 72.0], 0.1: [80.0, 82.0], 1.0: [80.7, 80.7], 10.0: [80.3, 80.3]}
    rows = [
        {"problem": "p", "lr": lr, "seed": seed, "horizon": 1.0, "finish": finish, "test": test}
        for lr, tests in accuracy.items()
        for seed, test in enumerate(tests)
        for finish in FINISHES
    ]
    runs = pl.DataFrame(rows)
    best = bests(runs, higher_is_better=True)
    assert [one.finish for one in best] == list(FINISHES)
    assert (best[0].lr, best[0].test, best[0].low, best[0].high) == (0.1, 81, 0.1, 1)
    assert best[0].spread == pytest.approx(math.sqrt(2))
    # As a loss, 71 is the best, and only itself within 1%.
    assert (bests(runs, higher_is_better=False)[0].lr, bests(runs, higher_is_better=False)[0].high) == (0.01, 0.01)
    assert len(lines("p", runs, higher_is_better=True)) == 2 + len(FINISHES)


@pytest.mark.parametrize("steps", [0, 63, 100])
def test_steps_that_are_no_multiple_of_64_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="must be a positive multiple of 64"):
        regression(steps=steps)
