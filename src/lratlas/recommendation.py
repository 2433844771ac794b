"""An initial LR to use, as recommended by a study or a search."""

from dataclasses import dataclass, fields
from typing import Any, Literal

import polars as pl

Finish = Literal["fine-tune", "average", "anneal", "either", "constant", "schedule"]

COMPARED = pl.Schema(
    {
        "lr": pl.Float64,
        "value": pl.Float64,  # of the compared quantity, mean over seeds
        "seeds": pl.Int64,
        "as_good": pl.Boolean,  # as the best one
    }
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Recommendation:
    """An initial LR to use, with the range of equally good LRs, and how to finish.

    Attributes:
        lr: The LR; an effective one if the task is scale-invariant.
        low: The smallest LR that is as good.
        high: The largest LR that is as good.
        finish: How to finish: ``fine-tune`` with ``flr``; ``average`` the weights of the last checkpoints, or of the
            last tenth of the steps; ``anneal`` the LR to zero; ``either`` of the last two, whichever turns out better;
            ``constant`` if nothing needs to be done; ``schedule`` if the LR has one.
        flr: The LR to fine-tune with.
        count: The number of checkpoints to average, if they are counted.
        metric: The quantity of ``value``: a column of ``runs``, or ``metric``, the validation metric of a search.
        value: For a study, the value reached, mean over seeds. For a search, the expected value of a full training.
        value_low: The lower end of a 90% interval for the expected value; None for a value that was reached.
        value_high: The upper end.
        at_edge: Whether the LR is the smallest or the largest tested: the best may be further out.
        evidence: The compared LRs (see `COMPARED`), ascending.
        statement: The recommendation in a sentence or two.
    """

    lr: float
    low: float
    high: float
    finish: Finish
    flr: float | None = None
    count: int | None = None
    metric: str
    value: float | None
    value_low: float | None = None
    value_high: float | None = None
    at_edge: bool
    evidence: pl.DataFrame
    statement: str


def facts_of(recommendation: Recommendation | None) -> dict[str, Any] | None:
    """All fields by name, as JSON values; the evidence is a list of row objects."""
    if recommendation is None:
        return None
    record = {each.name: getattr(recommendation, each.name) for each in fields(recommendation)}
    return record | {"evidence": recommendation.evidence.to_dicts()}
