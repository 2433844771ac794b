"""The search for the initial LR as an Optuna sampler, and its results as trials of a study."""

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
"""Names of the parameters that the search sets."""
_FAILED = "Optuna's trial failed: its value was not finite, or the objective raised an exception"
_TRIES = 2
_WIDER = 1e4  # factor beyond each end of the grid: no search grows that far, and all trials have one range
_DIVERGED = 1e9  # reported to Optuna for a divergence before any other result

_Key = tuple[str, int]  # a study's name and a trial's number


@dataclass(frozen=True, kw_only=True)
class _Running:
    finder: Finder
    segment: Segment


class LRSampler(BaseSampler):
    """Makes the trials of a study follow LR Atlas's search for the initial LR; stops the study when the search is over.

    Each trial trains from fresh weights at a constant LR for a part of the steps. The objective requests both, and
    returns the validation metric:

    Example:
        >>> sampler = LRSampler("search", steps=10_000, direction="maximize")  # doctest: +SKIP
        >>> def objective(trial):  # doctest: +SKIP
        ...     lr = trial.suggest_float("lr", 1e-7, 100, log=True)
        ...     steps = trial.suggest_int("steps", 1, 20_000)
        ...     return train(lr, steps)
        >>> optuna.create_study(sampler=sampler, direction="maximize").optimize(objective)  # doctest: +SKIP
        >>> print(sampler.advice())  # doctest: +SKIP

    The search learns more from an objective that uses `segment` (seed, averaging, annealing) and `tell` (averaged
    weights, losses). Another sampler sets all other parameters. It is better to fix them, because the search compares
    LRs regardless of their values.

    NaN and infinity count as divergence, which is a normal result. However, Optuna marks a trial whose objective
    returned NaN as failed, and a sampler cannot distinguish it from a trial that raised an exception or was
    interrupted. A failed trial is therefore repeated once, and then counts as diverged. A call of `tell`, or NaN among
    the reported values, makes this clear at once; and `tell` returns a finite number, from which other samplers learn.
    The LR of a pruned trial is not trained further. Trials that were enqueued with custom LRs or steps are not part of
    the search.

    The search is stored in its folder: the same folder and settings resume it, also from another study. Threads
    (``n_jobs``) and processes can work on it in parallel; a trial with nothing left to do is pruned.

    Args:
        folder: Search folder; created if it does not exist.
        steps: Optimizer steps of a full training.
        lrs: Initial grid of LRs, as in `lratlas.Finder`.
        budget: Limit of the cost, in full trainings.
        direction: Direction of the study.
        tolerance: Metrics that differ by less than this share of the best one count as equally good.
        anneal: Whether some trials anneal; the objective must then follow ``segment.lr_at``.
        independent_sampler: Sampler of other parameters; random if None.

    Raises:
        SpecError: An argument is out of range; later, if the study has another direction or several.
        SearchError: The folder contains another search, is damaged or cannot be written.
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
        self._finders = dict[int, Finder]()  # one per thread, so that threads wait for each other
        self._running = dict[_Key, _Running]()
        self._failures = Counter[str]()  # of segments that were released

    @property
    def finished(self) -> bool:
        """Whether no segments are left to train; for a loop of ``study.ask`` and ``study.tell``."""
        return self._looking.finished

    def advice(self) -> Advice:
        """Return the advice from the results so far.

        Raises:
            SearchError: There are no results yet, or no LR could be trained.
        """
        return self._looking.advice()

    def segment(self, trial: Trial) -> Segment:
        """The segment that the trial must train; sets the LR and steps as parameters of the trial.

        Raises:
            TrialPruned: The search is over; Optuna handles it.
            SpecError: The trial was enqueued with a custom LR or steps.
        """
        trial.suggest_float(LR, *_lr_range(self._looking.search), log=True)
        trial.suggest_int(STEPS, 1, 2 * self._looking.search.steps)
        running = self._running.get((trial.study.study_name, trial.number))
        if running is None:
            raise SpecError(f"Trial {trial.number} was enqueued with a fixed {LR} or {STEPS}; it has no segment.")
        trial.set_user_attr("segment", running.segment.name)
        return running.segment

    def tell(
        self, trial: Trial, *, value: float | None = None, averaged: float | None = None, losses: Sequence[float] = ()
    ) -> float:
        """Record the result of a trial, with all arguments of `lratlas.Finder.tell`.

        Args:
            trial: The trial of the objective.
            value: Validation metric of the final weights.
            averaged: Validation metric of the weights averaged from ``segment.average_from`` on.
            losses: Training losses in order.

        Returns:
            The value for the objective to return: the metric that counts, or for a divergence the worst metric so far,
            because Optuna drops values that are not finite.

        Raises:
            SearchError: Both metrics are missing and all losses are finite, or the trial has no segment or a result
                already.
        """
        running = self._running.get((trial.study.study_name, trial.number))
        if running is None:
            raise SearchError(f"Trial {trial.number} has no segment of the search, or its result is already recorded.")
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
        """Return an empty space: each parameter is sampled when it is requested."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return no values."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the segment's LR or steps; the other sampler samples other parameters."""
        if param_name not in {LR, STEPS} or _is_own(trial):
            return self._independent.sample_independent(study, trial, param_name, param_distribution)
        # Do not bind the finder to a name: the traceback of an error would keep it, and its claims, alive.
        key = study.study_name, trial.number
        if key not in self._running:
            raise TrialPruned("The search for the learning rate is finished.")
        value = self._running[key].segment.lr if param_name == LR else self._running[key].segment.steps
        if not _contains(param_distribution, value):
            if param_name == LR and value not in self._looking.search.lrs:
                raise TrialPruned(f"The search extended to LR {value:.3g}, outside the range of the objective.")
            self._give_back(self._running.pop(key).finder)
            raise SpecError(
                f"The search needs {param_name} = {value:.6g}, which is not in {param_distribution}; widen this"
                f" range (log-uniform for {LR} and without a step), or pass other lrs to the sampler."
            )
        return value

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Record the trial's result in the search; stop the study if the search is over."""
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
        """Release a finder and its claim; False while it has other trials."""
        if any(each.finder is finder for each in list(self._running.values())):
            return False
        for thread, each in list(self._finders.items()):
            if each is finder:
                del self._finders[thread]
        return True


def _is_own(trial: FrozenTrial) -> bool:
    """Whether the trial was enqueued with a custom LR or steps."""
    return bool({LR, STEPS} & set(trial.system_attrs.get("fixed_params", {})))


def _contains(distribution: BaseDistribution, value: float) -> bool:
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return False
    grid = distribution.step or 0
    return distribution.low <= value <= distribution.high and (not grid or (value - distribution.low) % grid == 0)


def _stop(study: Study) -> None:
    # Outside of `study.optimize` there is nothing to stop; Optuna would raise an error.
    with suppress(RuntimeError):
        study.stop()


def add_search(study: Study, folder: str | Path) -> None:
    """Add the trainings of a search to a study, for Optuna's dashboard and plots.

    Each training becomes a trial with its metric at each reported step. The trial is complete if no other was trained
    for longer, pruned if the search stopped it early, and failed if it crashed. A diverged trial is complete, with the
    worst metric of all. Trials that the study already has are not added again.

    Args:
        study: A study with the direction of the search.
        folder: The search folder.

    Raises:
        SearchError: There is no search in the folder, or it is damaged.
        SpecError: The study's direction differs from that of the search, or it has several.
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
    """A training as a finished trial; its value is the penalty if it failed."""
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
    """Check that a study has the direction of a search.

    Raises:
        SpecError: The study has another direction, or several.
    """
    directions = [direction.name.lower() for direction in study.directions]
    if directions != [search.direction]:
        raise SpecError(
            f"The direction of the study is {' and '.join(directions)}, but that of the search is"
            f" {search.direction}; both need the same single direction."
        )


def _lr_range(search: Search) -> tuple[float, float]:
    """Range of all LRs that a search can reach when it grows."""
    return search.lrs[0] / _WIDER, search.lrs[-1] * _WIDER


def _worst(search: Search, results: Iterable[SegmentResult]) -> float:
    """Worst metric of all: the finite number that is reported to Optuna for a divergence."""
    scores = [search.score(each.quality) for each in results if each.quality is not None]
    return search.metric(min(scores, default=-_DIVERGED))
