"""The search for the initial LR as a sampler of Optuna, and what it found as trials of a study."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import get_ident
from typing import Any, Literal

from lratlas.errors import SearchError, SpecError, extra
from lratlas.paths import expand_home
from lratlas.search.advice import Advice
from lratlas.search.finder import Finder
from lratlas.search.journal import read_results, read_settings
from lratlas.search.regimes import regimes
from lratlas.search.segments import Segment, SegmentResult
from lratlas.search.settings import Search
from lratlas.text import first_not_finite

with extra("optuna"):
    from optuna import Study, Trial, TrialPruned
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.samplers import BaseSampler, RandomSampler
    from optuna.trial import FrozenTrial, TrialState, create_trial

__all__ = ["LRSampler", "add_search"]

LR, STEPS = "lr", "steps"
"""The names of the parameters that a search decides on."""
_FAILED = "Optuna's trial failed: its value was not finite, or the objective raised an exception"
_TRIES = 2
_WIDER = 1e4  # than the grid at each end: no search grows that far, and all trials have one range
_DIVERGED = 1e9  # told to Optuna of a divergence before anything else was told

_Key = tuple[str, int]  # a study's name and a trial's number


@dataclass(frozen=True, kw_only=True)
class _Running:
    finder: Finder
    segment: Segment


class LRSampler(BaseSampler):
    """Lets the trials of a study follow LR Atlas's search for the initial LR; the study stops when it is over.

    Each trial is a training from fresh weights at a constant LR for a part of the steps. The objective asks for both,
    and returns the validation metric:

    Example:
        >>> sampler = LRSampler("search", steps=10_000, direction="maximize")  # doctest: +SKIP
        >>> def objective(trial):  # doctest: +SKIP
        ...     lr = trial.suggest_float("lr", 1e-7, 100, log=True)
        ...     steps = trial.suggest_int("steps", 1, 20_000)
        ...     return train(lr, steps)
        >>> optuna.create_study(sampler=sampler, direction="maximize").optimize(objective)  # doctest: +SKIP
        >>> print(sampler.advice())  # doctest: +SKIP

    More is learned from an objective that uses `segment` (seed, averaging, annealing) and `tell` (averaged weights,
    losses). Other parameters are left to another sampler; whatever they are, all LRs are compared, so that they are
    better fixed.

    NaN and infinity are divergences: results like others. But Optuna marks a trial whose objective returned NaN as
    failed, and a sampler cannot tell it from one that raised an exception or was interrupted. So a failed trial is
    repeated once, and then counts as diverged. `tell`, or NaN among the reported values, says so at once; and `tell`
    returns a finite number, from which other samplers learn. A pruned trial's LR is not gone on with. Trials that were
    enqueued with an LR or steps of their own are no part of the search.

    The search is kept in its folder: the same folder and settings go on with it, also from another study. Threads
    (``n_jobs``) and processes may work on it at once; a trial that finds nothing left to do is pruned.

    Args:
        folder: Where the search is kept; made if it is not there.
        steps: Optimizer steps of a full training.
        lrs: The LRs to begin with, as for `lratlas.Finder`.
        budget: What may be trained, in full trainings.
        direction: That of the study.
        tolerance: Metrics that differ by less than this share of the best one count as equally good.
        anneal: Whether some trials anneal; the objective must then follow ``segment.lr_at``.
        independent_sampler: For other parameters; random if none is given.

    Raises:
        SpecError: An argument is out of range; later, if the study has another direction or several.
        SearchError: The folder holds another search, is damaged or cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        steps: int,
        lrs: Sequence[float] | None = None,
        budget: float = 1.5,
        direction: Literal["minimize", "maximize"] = "minimize",
        tolerance: float = 0.01,
        anneal: bool = False,
        independent_sampler: BaseSampler | None = None,
    ) -> None:
        self._make = partial(
            Finder,
            folder,
            steps=steps,
            lrs=lrs,
            budget=budget,
            direction=direction,
            tolerance=tolerance,
            resumable=False,
            anneal=anneal,
        )
        self._looking = self._make()  # never asks
        self._independent = RandomSampler() if independent_sampler is None else independent_sampler
        self._finders = dict[int, Finder]()  # one for each thread, so that threads wait for one another
        self._running = dict[_Key, _Running]()
        self._failures = Counter[str]()  # of segments that were given back

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be trained; for a loop of ``study.ask`` and ``study.tell``."""
        return self._looking.finished

    def advice(self) -> Advice:
        """What the search says so far.

        Raises:
            SearchError: Nothing has been told yet, or no LR could be trained.
        """
        return self._looking.advice()

    def segment(self, trial: Trial) -> Segment:
        """What the trial is to train; its LR and steps become the trial's parameters.

        Raises:
            TrialPruned: The search is over; Optuna handles it.
            SpecError: The trial was enqueued with an LR or steps of its own.
        """
        trial.suggest_float(LR, *_lr_range(self._looking.search), log=True)
        trial.suggest_int(STEPS, 1, 2 * self._looking.search.steps)
        running = self._running.get((trial.study.study_name, trial.number))
        if running is None:
            raise SpecError(f"Trial {trial.number} was enqueued with its own {LR} or {STEPS}; it has no segment.")
        trial.set_user_attr("segment", running.segment.name)
        return running.segment

    def tell(
        self, trial: Trial, *, value: float | None = None, averaged: float | None = None, losses: Sequence[float] = ()
    ) -> float:
        """Say what came of a trial, with all that `lratlas.Finder.tell` takes.

        Args:
            trial: The objective's.
            value: The validation metric of the weights at the end.
            averaged: The validation metric of the weights averaged from ``segment.average_from`` on.
            losses: Training losses in order.

        Returns:
            What the objective is to return: the metric that counts, or where it diverged the worst one so far, for
            Optuna drops what is not finite.

        Raises:
            SearchError: Neither metric is told and no loss says why, or the trial has no segment or was told before.
        """
        running = self._running.get((trial.study.study_name, trial.number))
        if running is None:
            raise SearchError(f"Trial {trial.number} has no segment of the search, or was told before.")
        result = running.finder.tell(running.segment, value=value, averaged=averaged, losses=losses)
        del self._running[trial.study.study_name, trial.number]
        return _worst(running.finder.search, running.finder.results) if result.quality is None else result.quality

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Ask the search for the trial's segment."""
        _check_direction(study, self._looking.search)
        self._independent.before_trial(study, trial)
        if _is_own(trial):
            return
        finder = self._finders.get(get_ident())
        if finder is None:
            finder = self._finders[get_ident()] = self._make()
        segment = finder.ask()
        if segment is None:
            _stop(study)
        else:
            self._running[study.study_name, trial.number] = _Running(finder=finder, segment=segment)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None: each parameter is sampled when it is asked for."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The segment's LR or steps; other parameters come from the other sampler."""
        if param_name not in {LR, STEPS} or _is_own(trial):
            return self._independent.sample_independent(study, trial, param_name, param_distribution)
        # No name is given to the finder here: the traceback of an error would keep it, and its claims, alive.
        key = study.study_name, trial.number
        if key not in self._running:
            raise TrialPruned("The search for the learning rate is over.")
        value = self._running[key].segment.lr if param_name == LR else self._running[key].segment.steps
        if not _contains(param_distribution, value):
            if param_name == LR and value not in self._looking.search.lrs:
                raise TrialPruned(f"The search has grown to an LR of {value:.3g}, outside of the objective's range.")
            self._give_back(self._running.pop(key).finder)
            raise SpecError(
                f"The search needs {param_name} = {value:.6g}, which is not in {param_distribution}; widen that range,"
                f" log-uniform for {LR} and without a step, or give the sampler other lrs."
            )
        return value

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Tell the search what came of the trial, and stop the study if that was all."""
        self._independent.after_trial(study, trial, state, values)
        running = self._running.pop((study.study_name, trial.number), None)
        if running is not None:
            self._conclude(running, trial, state, values)
        if self.finished:
            _stop(study)

    def reseed_rng(self) -> None:
        """Reseed the sampler of the other parameters."""
        self._independent.reseed_rng()

    def _conclude(
        self, running: _Running, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        finder, segment = running.finder, running.segment
        if state == TrialState.COMPLETE and values:
            finder.tell(segment, value=values[0])
        elif first_not_finite(trial.intermediate_values.values()) is not None:
            finder.tell(segment, value=math.nan)
        elif state == TrialState.PRUNED:
            finder.fail(segment, f"Optuna's trial {trial.number} was pruned")
        else:
            self._failures[segment.name] += 1
            if self._failures[segment.name] >= _TRIES or not self._give_back(finder):
                finder.fail(segment, _FAILED)

    def _give_back(self, finder: Finder) -> bool:
        """Let go of a finder, which frees its claim; not possible while other trials are its own."""
        if any(each.finder is finder for each in list(self._running.values())):
            return False
        for thread, each in list(self._finders.items()):
            if each is finder:
                del self._finders[thread]
        return True


def _is_own(trial: FrozenTrial) -> bool:
    """Whether it was enqueued with an LR or steps of its own."""
    return bool({LR, STEPS} & set(trial.system_attrs.get("fixed_params", {})))


def _contains(distribution: BaseDistribution, value: float) -> bool:
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return False
    grid = distribution.step or 0
    return distribution.low <= value <= distribution.high and (not grid or (value - distribution.low) % grid == 0)


def _stop(study: Study) -> None:
    # Outside of `study.optimize` there is nothing to stop, which Optuna takes for a mistake.
    with suppress(RuntimeError):
        study.stop()


def add_search(study: Study, folder: str | Path) -> None:
    """Add what a search has trained so far to a study, for Optuna's dashboard and plots.

    Each training becomes a trial, with the metric that counts by the step at which it was told: complete where it was
    trained as long as any, pruned where the search did not go on with it, failed where it crashed. A diverged one is
    complete, with the worst metric of all. What the study already has is not added again.

    Args:
        study: With the search's direction.
        folder: The search's.

    Raises:
        SearchError: There is no search in the folder, or it is damaged.
        SpecError: The study has another direction than the search, or several.
    """
    folder = expand_home(folder)
    search, results = read_settings(folder), read_results(folder)
    _check_direction(study, search)
    known = {trial.user_attrs.get("segment") for trial in study.get_trials(deepcopy=False)}
    trials = dict[tuple[float, int, bool], list[SegmentResult]]()
    for each in sorted(results, key=lambda each: each.segment.stop):
        trials.setdefault((each.segment.lr, each.segment.seed, each.segment.annealed), []).append(each)
    longest = max((each.segment.stop for each in results if not each.segment.annealed), default=0)
    told = regimes(results, steps_each=search.steps_each)
    for (lr, seed, _), of in trials.items():
        if of[-1].segment.name not in known:
            penalty = _worst(search, results) if told[lr, seed] == "diverging" else None
            study.add_trial(_frozen_trial(search, of, longest=longest, penalty=penalty))


def _frozen_trial(search: Search, of: Sequence[SegmentResult], *, longest: int, penalty: float | None) -> FrozenTrial:
    """A training as a finished trial; the penalty is its value if it failed."""
    last = of[-1]
    value, state = last.quality, TrialState.COMPLETE
    if last.failure is not None:
        value, state = penalty, TrialState.FAIL if penalty is None else TrialState.COMPLETE
    elif last.segment.stop < longest and last.segment.seed == search.seed and not last.segment.annealed:
        state = TrialState.PRUNED
    low, high = _lr_range(search)
    return create_trial(
        state=state,
        value=value,
        params={LR: last.segment.lr, STEPS: last.segment.stop, "annealed": last.segment.annealed},
        distributions={
            LR: FloatDistribution(low, high, log=True),
            STEPS: IntDistribution(1, 2 * search.steps),
            "annealed": CategoricalDistribution([False, True]),
        },
        intermediate_values={each.segment.stop: each.quality for each in of if each.quality is not None},
        user_attrs={"segment": last.segment.name, "seed": last.segment.seed, "failure": last.failure},
    )


def _check_direction(study: Study, search: Search) -> None:
    """See that a study has a search's direction.

    Raises:
        SpecError: It has another, or several.
    """
    directions = [direction.name.lower() for direction in study.directions]
    if directions != [search.direction]:
        raise SpecError(
            f"The study is to {' and '.join(directions)} and the search to {search.direction}; both must have the same"
            " single direction."
        )


def _lr_range(search: Search) -> tuple[float, float]:
    """Within which all LRs of a search lie, however far it grows."""
    return search.lrs[0] / _WIDER, search.lrs[-1] * _WIDER


def _worst(search: Search, results: Iterable[SegmentResult]) -> float:
    """The worst metric of all: the finite number that Optuna is told of a divergence."""
    scores = [search.score(each.quality) for each in results if each.quality is not None]
    return search.metric(min(scores, default=-_DIVERGED))
