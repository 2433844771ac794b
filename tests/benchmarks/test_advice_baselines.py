"""The scores of the advice benchmark and the methods that it compares: against formulas, and on a small training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from schedulefree import AdamWScheduleFree
from torch import nn

import benchmarks.advice.__main__ as advice
from benchmarks.advice import no_lr, packaged_finders, range_test, tabular
from benchmarks.advice.measuring import FINISHES, RUNS, measure
from benchmarks.advice.oracle import SEEDS
from benchmarks.advice.problem import Problem, Split, batches, chance
from benchmarks.advice.range_test import Curve
from benchmarks.advice.report import chart_data
from benchmarks.advice.scoring import Choice, Surface, best_test, found, score, scores, surface
from benchmarks.advice.standings import as_text, by_problem, problems_as_text, standings

LRS = (0.01, 0.1, 1.0)
CURVE = np.geomspace(range_test.LOW, range_test.HIGH, 91)


def line(**changes: object) -> Problem:
    """A linear regression of three inputs with noise."""
    generator = np.random.default_rng(0)
    x = torch.from_numpy(generator.normal(size=(60, 3))).float()
    noise = torch.from_numpy(generator.normal(size=(60, 1))).float()
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3 + 0.5 * noise
    pairs = [(x[rows], y[rows]) for rows in (slice(0, 30), slice(30, 40), slice(40, 60))]
    problem = Problem(
        name="line",
        description="linear regression",
        split=Split(train=pairs[0], validation=pairs[1], test=pairs[2]),
        model=lambda: nn.Linear(3, 1),
        rule={"name": "sgd"},
        batch_size=10,
        steps=128,
        lrs=LRS,
        loss="mse",
        metric="loss",
    )
    return replace(problem, **changes)  # pyright: ignore[reportArgumentType] - fields by name


def sides() -> Problem:
    """Two classes, of which one has three quarters of the test set."""
    x = torch.arange(8.0)[:, None]
    pair = x, torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    split = Split(train=pair, validation=pair, test=pair)
    return line(name="sides", split=split, model=lambda: nn.Linear(1, 2), loss="cross_entropy", metric="accuracy")


def table(
    problem: Problem, test: Mapping[str, Sequence[float]], validation: Mapping[str, Sequence[float]] | None = None
) -> pl.DataFrame:
    """Rows of the oracle, whose values over the LRs are one lower and one higher than these for two seeds."""
    rows = [
        {"problem": problem.name, "lr": lr, "seed": seed, "horizon": 1.0, "finish": finish}
        | {"validation": (validation or test)[finish][place] + shift, "test": values[place] + shift}
        | {"diverged": False, "seconds": 0.0}
        for finish, values in test.items()
        for place, lr in enumerate(problem.lrs)
        for seed, shift in ((0, -1.0), (1, 1.0))
    ]
    return pl.DataFrame(rows, schema=RUNS)


def at(lr: float | None, **changes: object) -> Choice:
    choice = Choice(method="any", problem="sides", seed=0, lr=lr)
    return replace(choice, **changes)  # pyright: ignore[reportArgumentType] - fields by name


@pytest.fixture(scope="module")
def trained() -> pl.DataFrame:
    """The oracle of the regression: real trainings."""
    return pl.concat(measure(line(), lr=lr, seed=seed).runs for lr in LRS for seed in SEEDS)


def test_scores_are_means_over_seeds_and_linear_in_the_lrs_logarithm() -> None:
    known = surface(sides(), table(sides(), {"constant": [60.0, 80.0, 70.0]}))
    assert found(known, 0.1).test == pytest.approx(80)
    assert found(known, 0.01 * 10**0.25).test == pytest.approx(65)
    assert found(known, math.sqrt(0.1)).test == pytest.approx(75)
    assert found(known, 1e-9).test == pytest.approx(60)
    assert found(known, 1.0).test == pytest.approx(70)
    assert found(known, 1.1).test == pytest.approx(75)  # six of eight, whatever is shown
    assert score(known, at(0.01)).regret == pytest.approx(20)
    assert score(known, at(0.01)).points == pytest.approx(20)


def test_a_finish_that_is_left_open_is_chosen_by_validation() -> None:
    test = {"constant": [60.0, 80.0, 70.0], "anneal": [61.0, 85.0, 60.0]}
    validation = {"constant": [60.0, 90.0, 50.0], "anneal": [65.0, 60.0, 60.0]}
    known = surface(sides(), table(sides(), test, validation))
    judged = score(known, at(0.1))
    assert judged.finish == "constant"
    assert judged.regret == pytest.approx(5)
    assert judged.lr_regret == pytest.approx(0)
    assert score(known, at(0.1, finish="anneal")).regret == pytest.approx(0)
    assert score(known, at(1.0)).lr_regret == pytest.approx(25)


def test_losses_are_compared_relatively_and_never_above_chance() -> None:
    problem = line()
    floor = chance(problem, problem.split.test)
    known = surface(problem, table(problem, {"constant": [1.5, 1.2, 1e9]}).with_columns(pl.col("test")))
    assert floor > 2.5
    assert best_test(known) == pytest.approx(1.2)
    judged = score(known, at(0.01))
    assert judged.regret == pytest.approx(25)
    assert judged.points == pytest.approx(10)
    assert score(known, at(1.0)).test == pytest.approx(floor)
    assert score(known, at(None, test=math.inf)).test == pytest.approx(floor)


def test_a_choice_that_cannot_be_judged_is_named() -> None:
    known = surface(sides(), table(sides(), {"constant": [60.0, 80.0, 70.0]}))
    with pytest.raises(ValueError, match="no anneal at the horizon 1"):
        score(known, at(0.1, finish="anneal"))
    with pytest.raises(ValueError, match=r"no finish at the horizon 0\.3"):
        score(known, at(0.1, horizon=0.3))
    with pytest.raises(ValueError, match="any on sides"):
        score(known, at(None))
    with pytest.raises(ValueError, match="no runs of line with seed 7"):
        surface(line(), table(line(), {"constant": [1.0, 2.0, 3.0]}), seed=7)


@given(
    values=st.lists(st.lists(st.floats(10, 99), min_size=3, max_size=3), min_size=2, max_size=2),
    lr=st.floats(1e-6, 1.0),
)
def test_no_choice_within_the_grid_beats_the_best(values: list[list[float]], lr: float) -> None:
    known = surface(sides(), table(sides(), dict(zip(FINISHES, values, strict=False))))
    judged = score(known, at(lr))
    assert judged.regret >= -1e-9
    assert judged.lr_regret is not None
    assert judged.regret >= judged.lr_regret - 1e-9


def test_standings_are_medians_and_worsts_of_means() -> None:
    known = [surface(sides(), table(sides(), {"constant": [60.0, 80.0, 70.0]}))]
    known.append(surface(line(), table(line(), {"constant": [1.5, 1.2, 1.8]})))
    chosen = [
        at(0.1, method="good", cost=1.0),
        at(0.1, method="good", seed=1, cost=2.0),
        at(0.1, method="good", seed=2, cost=1.5),
        at(0.01, method="good", problem="line"),
        at(0.01, method="bad"),
        at(1.0, method="bad", seed=1),
        at(1.0, method="bad", problem="line", cost=3.0),
    ]
    scored = scores(advice.choices_table(chosen), known)
    first, second = standings(scored).iter_rows(named=True)
    assert (first["method"], second["method"]) == ("good", "bad")
    assert first["median"] == pytest.approx(5)  # of 0 and 25 % of the loss
    assert first["worst"] == pytest.approx(10)
    assert first["within"] == pytest.approx(3 / 4)
    assert first["cost"] == pytest.approx(1.25)
    assert second["accuracy_median"] == pytest.approx(15)
    assert second["loss_worst"] == pytest.approx(50)
    assert second["worst_choice"] == pytest.approx(20)
    assert by_problem(scored).filter(method="bad")["points"].to_list() == pytest.approx([20, 15])
    assert chart_data(scored)["median"].to_list() == pytest.approx([5, 5, 17.5, 17.5])
    assert as_text(standings(scored)).splitlines()[1].split()[:3] == ["good", "1.25", "5.00"]
    assert problems_as_text(scored, ["bad"]).splitlines()[1].split() == ["bad", "20.00", "15.00"]


@pytest.mark.parametrize("pruner", tabular.PRUNERS)
@pytest.mark.parametrize("length", tabular.LENGTHS)
def test_a_tpe_search_keeps_to_its_budget_and_the_grid(trained: pl.DataFrame, pruner: str, length: str) -> None:
    known = surface(line(), trained, seed=0)
    for budget in (0.25, 1.0, 1.5, 3.0):
        choice = tabular.tpe_search(known, pruner=pruner, length=length, budget=budget, seed=0, draw=0)
        assert choice == tabular.tpe_search(known, pruner=pruner, length=length, budget=budget, seed=0, draw=0)
        assert choice.lr in LRS
        assert choice.cost <= budget + 1e-9
        assert choice.cost > budget - 1 / 64
        whole = tabular.LENGTHS[length] <= budget  # the first trial has nothing to be pruned by
        assert (choice.finish is not None) == whole


def test_a_tpe_search_chooses_the_best_of_what_it_saw(trained: pl.DataFrame) -> None:
    known = surface(line(), trained, seed=1)
    wide = tabular.tpe_search(known, pruner="median", length=", short trials", budget=20, seed=1, draw=3)
    values = {
        (finish, lr): value
        for finish in FINISHES
        for lr, value in zip(LRS, known.validation[finish, 0.25], strict=True)
    }
    assert wide.finish is not None
    assert wide.lr is not None
    assert values[wide.finish, wide.lr] == min(values.values())


def test_a_screen_goes_on_with_the_best_after_an_epoch(trained: pl.DataFrame) -> None:
    known = surface(line(), trained, seed=0)
    # An epoch is three of 128 steps, so the screen ends at 2 or 4 of them; all three LRs are screened.
    early = {horizon: LRS[int(known.validation["constant", horizon].argmin())] for horizon in (1 / 64, 1 / 32)}
    assert len(set(early.values())) == 1
    choice = tabular.screen_search(known, budget=1.5, seed=0, draw=0)
    assert choice.lr == early[1 / 64]
    assert choice.cost in {1 + 2 / 64, 1 + 2 / 32}
    assert tabular.screen_search(known, budget=3.0, seed=0, draw=0).cost <= 3


def test_the_whole_grid_is_best_on_validation(trained: pl.DataFrame) -> None:
    one, every = tabular.grid_choices(line(), trained, 2)
    final = trained.filter(pl.col("horizon") == 1)
    best = final.filter(seed=2).sort("validation", "lr").row(0, named=True)
    assert (one.lr, one.cost) == (best["lr"], 3)
    means = final.group_by("finish", "lr").agg(pl.col("validation").mean()).sort("validation")
    assert (every.finish, every.lr, every.cost) == (*means.select("finish", "lr").row(0), 9)
    assert tabular.default_choices(line(), 0)[0].lr == 1e-3


def test_running_means_have_no_bias_at_the_start() -> None:
    assert range_test.running_means(np.full(30, 2.5)) == pytest.approx(np.full(30, 2.5))
    losses = np.random.default_rng(0).normal(size=12)
    weights = 0.98 ** np.arange(11, -1, -1)
    assert range_test.running_means(losses)[-1] == pytest.approx(np.average(losses, weights=weights))


def test_fastais_rules_on_curves_of_known_shape() -> None:
    logs = np.log(CURVE)
    parabola = Curve(lrs=CURVE, losses=(logs - logs[60]) ** 2)
    assert range_test.minimum(parabola) == pytest.approx(CURVE[60] / 10)
    assert range_test.steep(parabola) == pytest.approx(CURVE[0])
    falling = Curve(lrs=CURVE, losses=1 / (1 + np.exp(3 * (logs - (logs[40] + logs[41]) / 2))))
    assert range_test.steep(falling) == pytest.approx(CURVE[40])
    assert range_test.valley(falling) == pytest.approx(CURVE[44])  # half of the steps, less one
    straight = Curve(lrs=CURVE, losses=-logs)
    assert range_test.slide(straight) == pytest.approx(CURVE[-16])
    level_then_up = Curve(lrs=CURVE, losses=np.maximum(0, np.arange(91) - 70.0))
    # From the last window whose ends differ: its right end is the first on the slope.
    assert range_test.slide(level_then_up) == pytest.approx(CURVE[-16])


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
    rules = (range_test.valley, range_test.steep, range_test.minimum, range_test.slide)
    assert all(rule(nothing) is None for rule in rules)


def test_a_range_test_ends_when_the_loss_runs_away() -> None:
    curve = range_test.range_test(line(), seed=0)
    assert len(curve.losses) < range_test.STEPS
    assert curve.losses[-1] > 4 * curve.losses.min()
    assert (curve.losses[:-1] <= 4 * np.minimum.accumulate(curve.losses[:-1])).all()
    assert curve.lrs[1:] / curve.lrs[:-1] == pytest.approx(10**0.08)
    assert {choice.cost for choice in range_test.choices(line(), 0)} == {len(curve.losses) / 128}


def test_the_packages_finders_run_as_released_and_leave_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    problem = line(batch_size=30)  # all samples: the loss has no noise, whose steps could be the steepest
    (steepest,) = packaged_finders.torch_lr_finder_choices(problem, 0)
    released, over_logs = packaged_finders.lightning_choices(problem, 0)
    assert torch.equal(torch.random.get_rng_state(), before)
    # Plain descent learns the line around 0.1; the slope over the LR itself is steepest at the start of the descent.
    assert steepest.lr is not None
    assert over_logs.lr is not None
    assert released.lr is not None
    assert 1e-3 < steepest.lr < 10
    assert 1e-3 < over_logs.lr <= 1
    assert released.lr < over_logs.lr
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
    assert set(rows.select("method", "seed").iter_rows()) == {(name, seed) for name in no_lr.METHODS for seed in SEEDS}
    assert not rows["diverged"].any()
    assert max(rows["test"].to_list()) < 0.5 * chance(problem, problem.split.test)
    no_lr.train_missing(problem, tmp_path)
    assert no_lr.read(tmp_path, no_lr.TABLE, no_lr.ROWS).equals(rows)
    choice = next(iter(no_lr.choices(rows)))
    assert (choice.lr, choice.cost, choice.test) == (None, 0, rows["test"][0])


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


def test_the_benchmark_keeps_choices_and_prints_every_method(
    trained: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(advice, "PROBLEMS", {"line": line})
    monkeypatch.setattr(advice, "problem_named", {"line": line()}.__getitem__)
    trained.write_parquet(tmp_path / "oracle.parquet")
    advice.main(["--folder", str(tmp_path)])
    first = capsys.readouterr()
    kept = pl.read_parquet(tmp_path / "choices.parquet")
    assert set(kept["family"]) == set(advice.FAMILIES)
    assert all(method in first.out for method in kept["method"].unique())
    assert (tmp_path / "regret.svg").read_text().startswith("<svg")
    advice.main(["--folder", str(tmp_path), "--again", "fastai"])
    second = capsys.readouterr()
    assert second.err == "line: fastai\n"
    assert second.out == first.out


def test_a_surface_of_one_seed_is_that_seeds(trained: pl.DataFrame) -> None:
    known: Surface = surface(line(), trained, seed=1)
    own = trained.filter(finish="anneal", horizon=0.5, seed=1).sort("lr")
    floor = chance(line(), line().split.test)
    assert known.test["anneal", 0.5] == pytest.approx(own["test"].clip(upper_bound=floor).to_numpy())
