"""The methods that the advice benchmark compares: on curves of known shape, and on a small training."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from schedulefree import AdamWScheduleFree

import benchmarks.advice.__main__ as advice
import lratlas
from benchmarks.advice import atlas_search, no_lr, packaged_finders, range_test, tabular
from benchmarks.advice.measuring import measure
from benchmarks.advice.oracle import JUDGES, SEEDS
from benchmarks.advice.problem import batches, chance
from benchmarks.advice.range_test import Curve
from benchmarks.advice.surface import Surface, surface
from small_problems import LRS, line

CURVE = np.geomspace(range_test.LOW, range_test.HIGH, 91)


@pytest.fixture(scope="module")
def trained() -> pl.DataFrame:
    """The oracle of the regression: real trainings."""
    return pl.concat(measure(line(), lr=lr, seed=seed).runs for lr in LRS for seed in (*SEEDS, *JUDGES))


def seen(trained: pl.DataFrame, seed: int) -> Surface:
    return surface(line(), trained, [seed])


def test_a_tpe_search_keeps_to_its_budget_and_the_grid(trained: pl.DataFrame) -> None:
    known = seen(trained, 0)
    for budget in (0.25, 1.0, 1.5, 3.0):
        choice = tabular.tpe_search(known, budget=budget, seed=0, draw=0)
        assert choice == tabular.tpe_search(known, budget=budget, seed=0, draw=0)
        assert choice.lr in LRS
        assert budget - 1 / 64 < choice.cost <= budget + 1e-9


def test_a_tpe_search_chooses_the_best_of_what_it_saw(trained: pl.DataFrame) -> None:
    known = seen(trained, 1)
    ways = [("constant", 0.25), ("average10", 0.25), ("anneal", 0.25)]
    best = LRS[int(np.min([known.validation[way][0] for way in ways], axis=0).argmin())]
    assert tabular.tpe_search(known, budget=20, seed=1, draw=3).lr == best


def test_a_screen_continues_the_best_after_an_epoch(trained: pl.DataFrame) -> None:
    known = seen(trained, 0)
    # An epoch is three of 128 steps, so the screen ends at 2 or 4 of them; all three LRs are screened.
    early = {horizon: LRS[int(known.validation["constant", horizon][0].argmin())] for horizon in (1 / 64, 1 / 32)}
    assert len(set(early.values())) == 1
    choice = tabular.screen_search(known, budget=1.5, seed=0, draw=0)
    assert choice.lr == early[1 / 64]
    assert choice.cost in {1 + 2 / 64, 1 + 2 / 32}
    assert tabular.screen_search(known, budget=3.0, seed=0, draw=0).cost <= 3


def test_the_whole_grid_is_best_on_the_validation_of_one_seed(trained: pl.DataFrame) -> None:
    (one,) = tabular.grid_choices(line(), trained, 2)
    ways = pl.struct("finish", "horizon").is_in(
        [{"finish": "average10", "horizon": share} for share in (0.125, 0.25, 0.5, 1.0)]
        + [{"finish": "anneal", "horizon": 1.0}]
    )
    best = trained.filter(ways & (pl.col("seed") == 2)).sort("validation").row(0, named=True)
    assert (one.lr, one.cost) == (best["lr"], 3)


def test_of_lrs_that_validate_alike_the_middle_one_is_taken(trained: pl.DataFrame) -> None:
    known = surface(line(), trained.with_columns(validation=pl.lit(1.0)), [0])
    assert tabular.best_finished(known, np.array([2, 0, 1])) == LRS[1]


def test_the_customary_lr_is_that_of_the_optimizer() -> None:
    assert [choice.lr for choice in tabular.default_choices(line(), 0)] == [0.1]
    assert line(rule={"name": "adamw"}).default_lr == 1e-3


def test_running_means_have_no_bias_at_the_start() -> None:
    assert range_test.running_means(np.full(30, 2.5)) == pytest.approx(np.full(30, 2.5))
    losses = np.random.default_rng(0).normal(size=12)
    weights = 0.98 ** np.arange(11, -1, -1)
    assert range_test.running_means(losses)[-1] == pytest.approx(np.average(losses, weights=weights))


def test_fastais_rules_on_curves_of_known_shape() -> None:
    logs = np.log(CURVE)
    parabola = Curve(lrs=CURVE, losses=(logs - logs[60]) ** 2)
    assert range_test.minimum(parabola) == pytest.approx(CURVE[60] / 10)
    falling = Curve(lrs=CURVE, losses=1 / (1 + np.exp(3 * (logs - (logs[40] + logs[41]) / 2))))
    assert range_test.valley(falling) == pytest.approx(CURVE[44])  # half of the steps, less one


def test_rules_see_neither_the_ends_nor_what_follows_a_nan() -> None:
    losses = np.arange(100.0, 0, -1)
    assert range_test.readable(Curve(lrs=CURVE.repeat(2)[:100], losses=losses)).losses.tolist() == list(
        range(90, 5, -1)
    )
    losses[40:] = math.nan
    assert range_test.readable(Curve(lrs=CURVE.repeat(2)[:100], losses=losses)).losses.tolist() == list(
        range(90, 60, -1)
    )
    nothing = Curve(lrs=CURVE[:0], losses=CURVE[:0])
    assert range_test.valley(nothing) is None
    assert range_test.minimum(nothing) is None


def test_a_range_test_ends_when_the_loss_runs_away() -> None:
    curve = range_test.range_test(line(), seed=0)
    assert len(curve.losses) < range_test.STEPS
    assert curve.losses[-1] > 4 * curve.losses.min()
    assert (curve.losses[:-1] <= 4 * np.minimum.accumulate(curve.losses[:-1])).all()
    assert curve.lrs[1:] / curve.lrs[:-1] == pytest.approx(10**0.08)
    assert {choice.cost for choice in range_test.choices(line(), 0)} == {len(curve.losses) / 128}


def test_the_packages_finders_run_and_leave_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    problem = line(batch_size=30)  # all samples: the loss has no noise, whose steps could be the steepest
    (steepest,) = packaged_finders.torch_lr_finder_choices(problem, 0)
    (over_logs,) = packaged_finders.lightning_choices(problem, 0)
    assert torch.equal(torch.random.get_rng_state(), before)
    # Plain descent learns the line around 0.1.
    assert steepest.lr is not None
    assert over_logs.lr is not None
    assert 1e-3 < steepest.lr < 10
    assert 1e-3 < over_logs.lr <= 1
    assert 0 < steepest.cost < 100 / 128  # it diverged
    assert packaged_finders.torch_lr_finder_choices(problem, 0) == [steepest]


def test_lightnings_slope_over_logs_ends_at_the_steepest_point() -> None:
    logs = np.log(CURVE)
    losses = 1 / (1 + np.exp(2 * (logs - logs[50])))
    assert packaged_finders.steepest(CURVE, losses) == pytest.approx(CURVE[50])
    losses[60:] = math.nan
    assert packaged_finders.steepest(CURVE, losses) == pytest.approx(CURVE[50])
    assert packaged_finders.steepest(CURVE[:11], losses[:11]) is None


def test_optimizers_without_an_lr_learn_and_are_trained_once(tmp_path: Path) -> None:
    problem = line(steps=1024)
    no_lr.train_missing(problem, tmp_path)
    rows = no_lr.read(tmp_path, no_lr.TABLE, no_lr.ROWS)
    assert set(rows.select("method", "seed").iter_rows()) == {(name, seed) for name in no_lr.METHODS for seed in JUDGES}
    assert not rows["diverged"].any()
    assert max(rows["test"].to_list()) < 0.5 * chance(problem, problem.split.test)
    no_lr.train_missing(problem, tmp_path)
    assert no_lr.read(tmp_path, no_lr.TABLE, no_lr.ROWS).equals(rows)


def test_schedule_free_is_judged_by_its_averaged_weights() -> None:
    problem = line()
    model = problem.make_model(3)
    optimizer = AdamWScheduleFree(model.parameters(), lr=0.0025, warmup_steps=6, weight_decay=0.0)
    optimizer.train()
    for x, y in batches(problem, seed=3, start=0, stop=problem.steps):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    optimizer.eval()
    x, y = problem.split.test
    quality, seconds = no_lr.schedule_free(problem, 3)
    assert quality.test == pytest.approx((model(x) - y).square().mean().item(), rel=1e-5)
    assert seconds > 0


class Stub:
    """Stands for `lratlas.find`: remembers what it was asked and gives the same advice."""

    def __init__(self, **changes: object) -> None:
        said = {"verdict": "found", "lr": 0.1, "low": 0.05, "high": 0.2, "finish": "anneal", "cost": 1.4}
        said |= {"expected": 0.25, "expected_low": 0.2, "expected_high": 0.3}
        self.advice = SimpleNamespace(**said | changes)
        self.asked = list[dict[str, Any]]()

    def __call__(self, task: lratlas.Task, **asked: object) -> SimpleNamespace:
        self.asked.append(asked | {"task": task})
        return self.advice


def test_lr_atlas_is_called_as_a_user_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = Stub()
    monkeypatch.setattr(lratlas, "find", find)
    problem = line(warmup=4)
    small, large = atlas_search.choices(problem, 2)
    assert (small.method, large.method) == ("LR Atlas", "LR Atlas, 3")
    assert (small.lr, small.low, small.high, small.finish, small.cost) == (0.1, 0.05, 0.2, "anneal", 1.4)
    assert (small.expected_low, small.expected, small.expected_high) == (0.2, 0.25, 0.3)
    assert small.seconds is not None
    assert small.training_seconds is not None
    assert small.training_seconds > 0
    first, second = find.asked
    assert (first["budget"], second["budget"], first["steps"], first["warmup"]) == (1.5, 3.0, 128, 4)
    assert "lrs" not in first
    assert first["seed"] not in (*SEEDS, *JUDGES)
    assert torch.equal(first["task"].prepared.validation[0], problem.split.validation[0])


def test_advice_without_an_lr_is_a_declined_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = dict.fromkeys(("low", "high", "expected", "expected_low", "expected_high"))
    monkeypatch.setattr(lratlas, "find", Stub(verdict="not_learned", lr=None, **nothing))
    choice = atlas_search.search(line(), seed=0, budget=1.5, plain=1.0)
    assert (choice.lr, choice.verdict, choice.low, choice.expected) == (None, "not_learned", None, None)


def test_the_benchmark_continues_and_prints_every_table(
    trained: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(advice, "PROBLEMS", {"line": line, "absent": lambda: line(name="absent")})
    monkeypatch.setattr(advice, "problem_named", {"line": line(), "absent": line(name="absent")}.__getitem__)
    monkeypatch.setattr(lratlas, "find", Stub())
    trained.write_parquet(tmp_path / "oracle.parquet")
    advice.main(["--folder", str(tmp_path)])
    first = capsys.readouterr()
    stored = pl.read_parquet(tmp_path / "choices.parquet")
    assert set(stored["family"]) == set(advice.FAMILIES)
    assert set(stored["problem"]) == {"line"}  # the other one has no oracle
    assert all(f"| {method} |" in first.out for method in stored["method"].unique())
    assert first.out.count("## ") == 6
    assert (tmp_path / "regret.svg").read_text().startswith("<svg")
    (tmp_path / "choices.parquet").unlink()
    stored.filter((pl.col("family") != "fastai") | (pl.col("seed") != 1)).write_parquet(tmp_path / "choices.parquet")
    advice.main(["--folder", str(tmp_path)])
    second = capsys.readouterr()
    assert second.err == "line: fastai, search 1\n"
    assert second.out == first.out
    advice.main(["--folder", str(tmp_path), "--again", "screen", "--only", "default"])
    assert "random, one-epoch screen" not in capsys.readouterr().out
