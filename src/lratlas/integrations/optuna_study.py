"""What a search for the initial LR found, as trials of an Optuna study."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from optuna import Study
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from lratlas.errors import SpecError
from lratlas.paths import expand_home
from lratlas.search.journal import read_results, read_settings
from lratlas.search.regimes import regimes
from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Search

LR, STEPS = "lr", "steps"
"""The names of the parameters that a search decides on."""

_WIDER = 1e4  # than the grid at each end: no search grows that far, and all trials have one range
_DIVERGED = 1e9  # told to Optuna of a divergence before anything else was told


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
    check_direction(study, search)
    known = {trial.user_attrs.get("segment") for trial in study.get_trials(deepcopy=False)}
    trials = dict[tuple[float, int, bool], list[SegmentResult]]()
    for each in sorted(results, key=lambda each: each.segment.stop):
        trials.setdefault((each.segment.lr, each.segment.seed, each.segment.annealed), []).append(each)
    longest = max((each.segment.stop for each in results if not each.segment.annealed), default=0)
    told = regimes(results, steps_each=search.steps_each)
    for (lr, seed, _), of in trials.items():
        if of[-1].segment.name not in known:
            penalty = worst(search, results) if told[lr, seed] == "diverging" else None
            study.add_trial(_frozen_trial(search, of, longest=longest, penalty=penalty))


def _frozen_trial(search: Search, of: Sequence[SegmentResult], *, longest: int, penalty: float | None) -> FrozenTrial:
    """A training as a finished trial; the penalty is its value if it failed."""
    last = of[-1]
    value, state = last.quality, TrialState.COMPLETE
    if last.failure is not None:
        value, state = penalty, TrialState.FAIL if penalty is None else TrialState.COMPLETE
    elif last.segment.stop < longest and last.segment.seed == search.seed and not last.segment.annealed:
        state = TrialState.PRUNED
    low, high = lr_range(search)
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


def check_direction(study: Study, search: Search) -> None:
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


def lr_range(search: Search) -> tuple[float, float]:
    """Within which all LRs of a search lie, however far it grows."""
    return search.lrs[0] / _WIDER, search.lrs[-1] * _WIDER


def worst(search: Search, results: Iterable[SegmentResult]) -> float:
    """The worst metric of all: the finite number that Optuna is told of a divergence."""
    scores = [search.score(each.quality) for each in results if each.quality is not None]
    return search.metric(min(scores, default=-_DIVERGED))
