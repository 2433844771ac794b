"""The search for the initial LR as a sampler of the real Optuna, and its evidence in a study."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import optuna
import pytest
from optuna import Study, Trial, TrialPruned
from optuna.samplers import TPESampler
from optuna.trial import TrialState

import lratlas
from lratlas.errors import SearchError, SpecError
from lratlas.integrations.optuna import LRSampler, add_search
from search.find_helpers import advised_lr

BEST = 0.03  # where the synthetic loss is lowest at all steps
STEPS = 6400
LRS = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
Objective = Callable[[Trial], float]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def loss_of(lr: float, steps: int, *, best: float = BEST) -> float:
    return 1 + 0.2 * math.log10(lr / best) ** 2 + steps**-0.5


def suggested(trial: Trial) -> tuple[float, int]:
    return trial.suggest_float("lr", 1e-7, 1e3, log=True), trial.suggest_int("steps", 1, STEPS)


def plain(trial: Trial) -> float:
    return loss_of(*suggested(trial))


def sampler_in(folder: Path, **settings: Any) -> LRSampler:
    defaults: dict[str, Any] = {"steps": STEPS, "lrs": LRS}
    return LRSampler(folder, **defaults | settings)


def study_with(sampler: LRSampler, **settings: Any) -> Study:
    return optuna.create_study(sampler=sampler, **settings)


def trained(study: Study) -> list[tuple[float, int]]:
    return [(trial.params["lr"], trial.params["steps"]) for trial in study.trials if trial.params]


def searched(folder: Path) -> lratlas.Finder:
    """The same search without Optuna."""
    finder = lratlas.Finder(folder, steps=STEPS, lrs=LRS, resumable=False, anneal=False)
    while each := finder.ask():
        finder.tell(each, value=loss_of(each.lr, each.stop))
    return finder


def test_a_study_follows_the_search_and_ends_by_itself(tmp_path: Path) -> None:
    sampler = sampler_in(tmp_path / "optuna")
    study = study_with(sampler)
    study.optimize(plain)
    finder = searched(tmp_path / "without")
    assert trained(study) == [(each.segment.lr, each.segment.stop) for each in finder.results]
    assert sampler.finished
    advice = sampler.advice()
    assert advice.lr == finder.advice().lr
    assert BEST / 2 <= advised_lr(advice) <= BEST * 2
    assert advice.cost <= 1.5
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}


def test_it_maximizes(tmp_path: Path) -> None:
    sampler = sampler_in(tmp_path, direction="maximize")
    study_with(sampler, direction="maximize").optimize(lambda trial: -plain(trial))
    assert BEST / 2 <= advised_lr(sampler.advice()) <= BEST * 2


def test_an_interrupted_search_goes_on_in_another_study(tmp_path: Path) -> None:
    whole = searched(tmp_path / "without")
    trials = list[tuple[float, int]]()
    while not (sampler := sampler_in(tmp_path / "optuna")).finished:
        study = study_with(sampler)
        study.optimize(plain, n_trials=5)
        trials += trained(study)
    assert trials == [(each.segment.lr, each.segment.stop) for each in whole.results]


@pytest.mark.parametrize("known_by", ["value", "report", "tell"])
def test_what_is_not_finite_is_a_divergence(tmp_path: Path, known_by: str) -> None:
    sampler = sampler_in(tmp_path)

    def objective(trial: Trial) -> float:
        lr, steps = suggested(trial)
        value = loss_of(lr, steps) if lr < 0.2 else math.nan
        if known_by == "report":
            trial.report(value, step=steps)
            if math.isnan(value):
                raise TrialPruned
        return sampler.tell(trial, value=value, losses=[value]) if known_by == "tell" else value

    study = study_with(sampler)
    study.optimize(objective)
    evidence = sampler.advice().evidence
    assert set(evidence.filter(evidence["lr"] > 0.2)["regime"]) == {"diverging"}
    assert evidence["failure"].is_null().to_list() == (evidence["lr"] < 0.2).to_list()
    assert sampler.advice().divergence is not None
    assert BEST / 2 <= advised_lr(sampler.advice()) <= BEST * 2
    if known_by == "tell":  # Optuna learns of them: as bad as the worst so far
        assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
        diverged = [trial.value for trial in study.trials if trial.params["lr"] > 0.2]
        assert diverged == [loss_of(0.0003, STEPS // 64)] * 2


def test_an_infinite_value_is_a_divergence_also_where_it_comes_first(tmp_path: Path) -> None:
    sampler = sampler_in(tmp_path)
    told = list[float]()

    def objective(trial: Trial) -> float:
        lr, steps = suggested(trial)
        told.append(sampler.tell(trial, value=math.inf if lr < 0.0005 else loss_of(lr, steps)))
        return told[-1]

    study_with(sampler).optimize(objective)
    assert math.isfinite(told[0])
    assert told[0] > max(told[1:])


@pytest.mark.parametrize("same", [True, False], ids=["the same sampler", "another sampler"])
def test_an_interrupted_trial_is_repeated(tmp_path: Path, same: bool) -> None:
    sampler = sampler_in(tmp_path / "optuna")

    def interrupted(trial: Trial) -> float:
        value = plain(trial)
        if trial.number == 10:
            raise KeyboardInterrupt
        return value

    study = study_with(sampler)
    with pytest.raises(KeyboardInterrupt):
        study.optimize(interrupted)
    again = sampler if same else sampler_in(tmp_path / "optuna")  # the first one still lives, as in a notebook
    other = study_with(again)
    other.optimize(plain)
    assert trained(study)[-1] == trained(other)[0]
    assert trained(study)[:-1] + trained(other) == [
        (each.segment.lr, each.segment.stop) for each in searched(tmp_path / "without").results
    ]


def test_a_trial_that_fails_twice_counts_as_diverged(tmp_path: Path) -> None:
    sampler = sampler_in(tmp_path)

    def objective(trial: Trial) -> float:
        if suggested(trial)[0] == 1.0:
            raise ValueError("out of memory")
        return plain(trial)

    study = study_with(sampler)
    study.optimize(objective, catch=(ValueError,))
    (failure,) = sampler.advice().evidence["failure"].drop_nulls()
    assert "raised an exception" in failure
    assert [trial.params["lr"] for trial in study.trials if trial.state == TrialState.FAIL] == [1.0, 1.0]
    assert sampler.finished


def test_a_pruned_trial_is_not_gone_on_with(tmp_path: Path) -> None:
    sampler = sampler_in(tmp_path)

    def objective(trial: Trial) -> float:
        lr, steps = suggested(trial)
        trial.report(1.0, step=1)
        if lr == BEST:
            raise TrialPruned
        return loss_of(lr, steps)

    study_with(sampler).optimize(objective)
    evidence = sampler.advice().evidence
    (pruned,) = evidence.filter(lr=BEST).rows(named=True)
    assert "was pruned" in pruned["failure"]
    assert pruned["regime"] != "diverging"
    assert any("was pruned" in warning for warning in sampler.advice().warnings)


def test_threads_share_a_search(tmp_path: Path) -> None:
    sampler = sampler_in(tmp_path / "optuna")
    both, met = Barrier(2), list[bool]()

    def objective(trial: Trial) -> float:
        value = plain(trial)
        try:  # two trials are under way at once
            both.wait(timeout=0 if met else 10)
            met.append(True)
        except BrokenBarrierError:
            both.reset()
        return value

    study = study_with(sampler)
    study.optimize(objective, n_jobs=2)
    assert met
    assert sampler.finished
    assert sorted(trained(study)) == sorted(
        (each.segment.lr, each.segment.stop) for each in searched(tmp_path / "without").results
    )
    # A thread that waited for the last trial of all finds nothing left to do.
    rest = [trial.state for trial in study.trials if not trial.params]
    assert rest in ([], [TrialState.PRUNED])


def test_trials_can_be_asked_for_at_once(tmp_path: Path) -> None:
    sampler = sampler_in(tmp_path)
    study = study_with(sampler)
    trials = [study.ask() for _ in LRS]
    assert [sampler.segment(trial).lr for trial in trials] == LRS
    with pytest.raises(SearchError, match="before the result"):
        study.ask()
    study.tell(trials[-1], state=TrialState.FAIL)
    for trial in trials[:-1]:
        study.tell(trial, loss_of(trial.params["lr"], trial.params["steps"]))
    assert [each["lr"] for each in sampler.advice().evidence.rows(named=True) if each["failure"]] == [1.0]
    while not sampler.finished:
        trial = study.ask()
        study.tell(trial, plain(trial))
    assert BEST / 2 <= advised_lr(sampler.advice()) <= BEST * 2


def test_segments_are_told_with_averages_and_losses(tmp_path: Path) -> None:
    sampler = sampler_in(tmp_path)

    def objective(trial: Trial) -> float:
        part = sampler.segment(trial)
        assert (trial.params["lr"], trial.params["steps"]) == (part.lr, part.steps)
        value = loss_of(part.lr, part.steps)
        return sampler.tell(trial, value=value, averaged=value - 0.1, losses=[value] * 4)

    study = study_with(sampler)
    study.optimize(objective)
    assert sampler.advice().finish == "average"
    assert {trial.user_attrs["segment"] for trial in study.trials} == {
        each.segment.name for each in lratlas.Finder(tmp_path, steps=STEPS, lrs=LRS, resumable=False).results
    }
    with pytest.raises(SearchError, match="its result is already recorded"):
        sampler.tell(Trial(study, 0), value=1.0)
    assert study.trials[0].value == pytest.approx(loss_of(LRS[0], STEPS // 64) - 0.1)


def test_other_parameters_are_left_to_another_sampler(tmp_path: Path) -> None:
    sampler = sampler_in(tmp_path, independent_sampler=TPESampler(seed=0))
    study = study_with(sampler)
    study.optimize(lambda trial: plain(trial) + 0 * trial.suggest_categorical("width", [32, 64]), n_trials=8)
    assert {trial.params["width"] for trial in study.trials} == {32, 64}
    assert [lr for lr, _ in trained(study)] == LRS


def test_enqueued_trials_are_of_the_search_unless_they_bring_their_own_lr(tmp_path: Path) -> None:
    sampler = sampler_in(tmp_path)
    study = study_with(sampler)
    study.enqueue_trial({"lr": 0.5, "steps": 7})
    study.enqueue_trial({"width": 64})
    study.optimize(lambda trial: plain(trial) + 0 * trial.suggest_int("width", 1, 64), n_trials=3)
    assert [trial.params["width"] for trial in study.trials][1] == 64
    assert [lr for lr, _ in trained(study)] == [0.5, *LRS[:2]]
    assert sampler.advice().evidence["lr"].to_list() == LRS[:2]
    study.enqueue_trial({"lr": 0.5})
    with pytest.raises(SpecError, match="Trial 3 was enqueued with a fixed lr or steps"):
        study.optimize(lambda trial: sampler.segment(trial).lr, n_trials=1)


def test_it_works_beside_hyperband(tmp_path: Path) -> None:
    sampler = sampler_in(tmp_path)

    def objective(trial: Trial) -> float:
        value = plain(trial)
        trial.report(value, step=1)
        return value

    study_with(sampler, pruner=optuna.pruners.HyperbandPruner()).optimize(objective)
    assert sampler.finished


@pytest.mark.parametrize("directions", [["maximize"], ["minimize", "minimize"]])
def test_another_direction_is_refused(tmp_path: Path, directions: list[Any]) -> None:
    searched(tmp_path / "done")
    study = optuna.create_study(sampler=sampler_in(tmp_path / "new"), directions=directions)
    with pytest.raises(SpecError, match=r"The direction of the study is m.*, but that of the search is minimize"):
        study.optimize(plain, n_trials=1)
    with pytest.raises(SpecError, match=r"The direction of the study is m.*, but that of the search is minimize"):
        add_search(study, tmp_path / "done")


def test_ranges_without_the_lrs_of_the_grid_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    study = study_with(sampler_in(tmp_path))
    for lr, steps, named in (((0.01, 0.1), (1, STEPS), "lr = 0.0003"), ((1e-4, 1.0), (200, STEPS), "steps = 100")):
        with pytest.raises(SpecError, match=named):
            study.optimize(
                lambda trial, lr=lr, steps=steps: (
                    trial.suggest_float("lr", *lr, log=True) + trial.suggest_int("steps", *steps)
                )
            )
    again = sampler_in(tmp_path)
    other = study_with(again)
    other.optimize(plain)
    assert trained(other) == [(each.segment.lr, each.segment.stop) for each in searched(tmp_path / "without").results]


def test_lrs_beyond_the_range_to_which_the_search_grows_are_pruned(tmp_path: Path) -> None:
    sampler = sampler_in(tmp_path)
    study = study_with(sampler)
    study.optimize(
        lambda trial: loss_of(
            trial.suggest_float("lr", 1e-4, 1.0, log=True), trial.suggest_int("steps", 1, STEPS), best=100.0
        )
    )
    assert [trial.state for trial in study.trials].count(TrialState.PRUNED) >= 1
    advice = sampler.advice()
    assert advice.lr is not None
    assert advice.high is not None
    assert advice.lr <= 1.0 <= advice.high
    assert max(lr for lr, _ in trained(study)) == 1.0


def test_settings_are_checked_when_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="steps"):
        sampler_in(tmp_path, steps=0)
    sampler_in(tmp_path)
    with pytest.raises(SearchError, match="budget"):
        sampler_in(tmp_path, budget=3.0)


def test_the_evidence_of_a_search_becomes_trials(tmp_path: Path) -> None:
    finder = lratlas.Finder(tmp_path, steps=STEPS, lrs=LRS, budget=4)
    while each := finder.ask():
        if each.lr == 1.0:
            finder.tell(each, value=math.nan)
        elif each.lr == 0.0003:
            finder.fail(each, "the disk was full")
        else:
            finder.tell(each, value=loss_of(each.lr, each.stop) - 0.1 * each.annealed)
    study = optuna.create_study()
    add_search(study, tmp_path)
    first = [trial for trial in study.trials if trial.user_attrs["seed"] == 0]
    trials = {(trial.params["lr"], trial.params["annealed"]): trial for trial in first}
    assert {lr for lr, _ in trials} == set(LRS)
    assert trials[1.0, False].state == TrialState.COMPLETE
    assert trials[1.0, False].value == max(each.value for each in finder.results if each.value)
    assert trials[0.0003, False].state == TrialState.FAIL
    assert trials[0.0003, False].user_attrs["failure"] == "the disk was full"
    assert trials[0.001, False].state == TrialState.PRUNED
    best = trials[BEST, False]
    assert best.state == TrialState.COMPLETE
    own = [each.segment for each in finder.results if (each.segment.lr, each.segment.seed) == (BEST, 0)]
    stops = {each.stop for each in own if not each.annealed}
    assert best.intermediate_values == {stop: loss_of(BEST, stop) for stop in stops}
    assert len(stops) > 4
    assert study.best_trial == trials[BEST, True]
    before = len(study.trials)
    add_search(study, tmp_path)
    assert len(study.trials) == before


def test_there_is_no_evidence_without_a_search(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="There is no search"):
        add_search(optuna.create_study(), tmp_path)
