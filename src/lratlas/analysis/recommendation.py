"""Which initial LRs to use for a final model as good as the best one found."""

from dataclasses import dataclass

from lratlas.analysis.regimes import all_too_small
from lratlas.analysis.scores import average_runs, best_averaged, best_fine_tuned, fine_tuned_runs, good_range, score_of
from lratlas.tables import Tables
from lratlas.text import format_lr


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The initial LRs to use.

    Attributes:
        best: The best PLR tested.
        low: The smallest PLR of those around it that are as good.
        high: The largest.
        score: How quality is measured, a column of ``runs``.
        value: The mean score of the best over seeds.
        flr: What to fine-tune with; None where averaging is better.
        count: How many checkpoints to average; None where fine-tuning is better.
        at_edge: Whether the best is the smallest or the largest PLR tested: the best may lie further out.
        statement: All that in a sentence or two.
    """

    best: float
    low: float
    high: float
    score: str
    value: float
    flr: float | None
    count: int | None
    at_edge: bool
    statement: str


def recommendation(tables: Tables, *, elr: bool) -> Recommendation | None:
    """The PLRs around the best one whose final models are as good as its own, fine-tuned or averaged.

    Fine-tuning with the lowest FLR and averaging compete; the better one is recommended. Neighbours of the best PLR
    belong to the range as long as they are as good, finished in the same way.

    Args:
        tables: A study's tables; ``runs`` and ``regimes``.
        elr: Whether LRs are effective ones.

    Returns:
        None where no model was fine-tuned or averaged in all seeds, or the loss has moved at no PLR.
    """
    runs, tested = tables["runs"], tables["regimes"]["plr"]
    score = score_of(runs)
    ways = [best for of in (best_fine_tuned, best_averaged) if (best := of(tables, score))]
    if not ways or all_too_small(tables["regimes"]):
        return None
    best = max(ways, key=lambda way: way.value if score.more_is_better else -way.value)
    finished = fine_tuned_runs(runs) if best.count is None else average_runs(runs).filter(count=best.count)
    good = good_range(finished, score)
    low, high = (good.low, good.high) if good else (best.plr, best.plr)
    name = "effective learning rate" if elr else "learning rate"
    start = f"of {format_lr(best.plr)}"
    if low < high:
        start = f"between {format_lr(low)} and {format_lr(high)}, at best {format_lr(best.plr)}"
    finish = f"fine-tune with {format_lr(best.flr)}" if best.flr else f"average the weights of {best.count} checkpoints"
    at_edge = best.plr in (tested.min(), tested.max())
    caution = " That is the edge of the range tested: the best may lie beyond, so extend it." if at_edge else ""
    reached = f"{score.name} {score.show(best.value)}"
    return Recommendation(
        best=best.plr,
        low=low,
        high=high,
        score=score.column,
        value=best.value,
        flr=best.flr,
        count=best.count,
        at_edge=at_edge,
        statement=f"Train with a constant {name} {start}, then {finish}: {reached}.{caution}",
    )
