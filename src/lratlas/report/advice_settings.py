"""An advice with the settings of its search: a page needs both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from lratlas.search.advice import Advice
from lratlas.search.evidence import limit_of
from lratlas.search.segments import SegmentResult, make_segment
from lratlas.search.settings import Search, make_search


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SearchedAdvice(Advice):
    """An advice with the settings of the search that it comes from."""

    search: Search


def with_settings(advice: Advice, search: Search) -> SearchedAdvice:
    """The advice with the settings of its search."""
    return SearchedAdvice(**{each.name: getattr(advice, each.name) for each in fields(Advice)}, search=search)


def settings_of(advice: Advice) -> Search | None:
    """The settings of the search, where the advice comes with them."""
    return advice.search if isinstance(advice, SearchedAdvice) else None


def schedule_text(advice: Advice) -> str:
    """The schedule of the LR in words; only that there is one where the settings are not known.

    Example:
        >>> schedule_text(with_settings(advice, make_search(steps=6400, schedule="cosine")))  # doctest: +SKIP
        'cosine schedule'
    """
    search = settings_of(advice)
    if search is None:
        return "schedule" if advice.finish == "schedule" else "constant"
    if search.schedule == "constant":
        return "constant"
    return f"{search.schedule} schedule" if isinstance(search.schedule, str) else "custom schedule"


def best_possible(advice: Advice) -> float | None:
    """The best value that the metric can have, as the search takes it; None where it is unknown or was exceeded."""
    search = settings_of(advice) or make_search(steps=advice.steps, direction=advice.direction)
    results = _results(advice)
    limit = limit_of(search, results)
    if limit is None or any(search.score(each.value) > search.score(limit) for each in results):
        return None
    return limit


def _results(advice: Advice) -> Sequence[SegmentResult]:
    """The metrics of the evidence as `limit_of` takes them, a result for each."""
    rows = advice.evidence.select("lr", "seed", "steps", "value", "averaged").iter_rows()
    return [
        SegmentResult(segment=make_segment(lr=lr, seed=seed, start=0, stop=steps, parent=None), value=metric)
        for lr, seed, steps, *metrics in rows
        for metric in metrics
        if metric is not None and math.isfinite(metric)
    ]
