"""Several studies in one table, one row each: boundaries, the best PLRs relative to the threshold, gains."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from lratlas.analysis.estimates import Gain
from lratlas.analysis.scores import best_averaged, best_fine_tuned, fine_tuned_runs, good_range, score_of
from lratlas.tables import Tables

_NUMBER, _WHOLE, _WORD = pl.Float64(), pl.Int64(), pl.String()

# Scores and gains are in the unit of the study's score: shares for an accuracy. Positive gains are better.
COMPARISON = pl.Schema(
    {
        "study": _WORD,
        "task": _WORD,
        "batch_size": _WORD,  # a number, or full; null for the task's default
        "elr": pl.Boolean(),  # LRs are effective ones
        "seeds": _WHOLE,
        "score": _WORD,  # test_accuracy or test_loss
        **{f"{boundary}{end}": _NUMBER for boundary in ("convergence", "subregime", "divergence")
           for end in ("", "_low", "_high")},
        # After fine-tuning with the lowest FLR.
        "best_plr": _NUMBER,
        "best_flr": _NUMBER,
        "best_over_threshold": _NUMBER,
        "best_score": _NUMBER,
        "best_gain": _NUMBER,  # of the best PLR just above the threshold over the best of regime 1
        "best_gain_low": _NUMBER,
        "best_gain_high": _NUMBER,
        "good_low": _NUMBER,  # neighbouring PLRs within one point of the best (1% of a loss)
        "good_high": _NUMBER,
        "good_factor": _NUMBER,
        # The best weight average, over PLRs and counts.
        "average_plr": _NUMBER,
        "average_count": _WHOLE,
        "average_over_threshold": _NUMBER,
        "average_score": _NUMBER,
        "average_gain": _NUMBER,
        "average_gain_low": _NUMBER,
        "average_gain_high": _NUMBER,
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One study of a comparison.

    Attributes:
        name: Its name, unique in a comparison.
        tables: Its tables; ``runs``, ``regimes`` and ``boundaries`` are read, any may be empty.
        elr: Whether its LRs are effective ones.
        task: The model and data, for people; empty if not known.
        batch_size: Samples in a batch, or ``full``; None for the task's default.
    """

    name: str
    tables: Tables = field(repr=False)
    elr: bool
    task: str = ""
    batch_size: str | None = None

    @property
    def threshold(self) -> float | None:
        """The convergence threshold; None if it was not reached."""
        return _boundaries(self.tables)["convergence"]


def comparison(entries: Sequence[Entry]) -> pl.DataFrame:
    """Put studies into one table.

    Args:
        entries: The studies.

    Returns:
        One row per study in the order given, with the columns of ``COMPARISON``. Values that a study lacks
        (fine-tuning, a threshold, a second and third seed for an interval) are null.
    """
    return pl.DataFrame([_row(entry) for entry in entries], schema=COMPARISON)


def _row(entry: Entry) -> dict[str, object]:
    runs = entry.tables["runs"]
    return {
        "study": entry.name,
        "task": entry.task or None,
        "batch_size": entry.batch_size,
        "elr": entry.elr,
        "seeds": runs["seed"].n_unique(),
        "score": None if runs.is_empty() else score_of(runs).column,
        **_boundaries(entry.tables),
        **_quality(entry),
    }


def _boundaries(tables: Tables) -> dict[str, float | None]:
    found = {row["boundary"]: row for row in tables["boundaries"].iter_rows(named=True)}
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {
        f"{boundary}{end}": found[boundary][column] if boundary in found else None
        for boundary in ("convergence", "subregime", "divergence")
        for end, column in ends.items()
    }


def _quality(entry: Entry) -> dict[str, object]:
    """The results of fine-tuning with the lowest FLR and of weight averaging."""
    tables = entry.tables
    runs, score = tables["runs"], score_of(tables["runs"])
    row: dict[str, object] = {}
    if best := best_fine_tuned(tables, score):
        row |= {"best_plr": best.plr, "best_flr": best.flr, "best_score": best.value}
        row |= {"best_over_threshold": _multiple(best.plr, entry), **_gain("best", best.gain)}
    if good := good_range(fine_tuned_runs(runs), score):
        row |= {"good_low": good.low, "good_high": good.high, "good_factor": good.factor}
    if best := best_averaged(tables, score):
        row |= {"average_plr": best.plr, "average_count": best.count, "average_score": best.value}
        row |= {"average_over_threshold": _multiple(best.plr, entry), **_gain("average", best.gain)}
    return row


def _multiple(plr: float, entry: Entry) -> float | None:
    return None if entry.threshold is None else plr / entry.threshold


def _gain(of: str, gain: Gain | None) -> dict[str, float | None]:
    ends = (None, None, None) if gain is None else (gain.mean, gain.low, gain.high)
    return dict(zip((f"{of}_gain", f"{of}_gain_low", f"{of}_gain_high"), ends, strict=True))
