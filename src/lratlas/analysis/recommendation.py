"""The initial LRs that lead to a final model as good as the best one found."""

import polars as pl

from lratlas.analysis.regimes import all_too_small
from lratlas.analysis.scores import (
    Score,
    average_runs,
    best_averaged,
    best_fine_tuned,
    fine_tuned_runs,
    good_range,
    means,
    score_of,
)
from lratlas.recommendation import COMPARED, Recommendation
from lratlas.tables import Tables
from lratlas.text import format_lr


def recommend(tables: Tables, *, elr: bool) -> Recommendation | None:
    """The PLRs around the best one with equally good final models, fine-tuned or averaged.

    Fine-tuning with the lowest FLR competes with averaging; the better one is recommended. The range extends over
    neighbours of the best PLR as long as they are as good when finished in the recommended way.

    Args:
        tables: A study's tables; ``runs`` and ``regimes``.
        elr: Whether LRs are effective ones.

    Returns:
        None if no model was fine-tuned or averaged in all seeds, or the loss has not moved at any PLR.
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
        start = f"between {format_lr(low)} and {format_lr(high)}, best {format_lr(best.plr)}"
    finish = f"fine-tune with {format_lr(best.flr)}" if best.flr else f"average the weights of {best.count} checkpoints"
    at_edge = best.plr in (tested.min(), tested.max())
    caution = " This is the edge of the tested range: extend it, as the best LR may be outside." if at_edge else ""
    reached = f"{score.name} {score.show(best.value)}"
    return Recommendation(
        lr=best.plr,
        low=low,
        high=high,
        finish="fine-tune" if best.count is None else "average",
        flr=best.flr,
        count=best.count,
        metric=score.column,
        value=best.value,
        at_edge=at_edge,
        evidence=_evidence(finished, score, low=low, high=high),
        statement=f"Train with a constant {name} {start}, then {finish}: {reached}.{caution}",
    )


def _evidence(finished: pl.DataFrame, score: Score, *, low: float, high: float) -> pl.DataFrame:
    compared = (
        means(finished, score, "plr").rename({"plr": "lr"}).with_columns(as_good=pl.col("lr").is_between(low, high))
    )
    return compared.select(pl.col(name).cast(kind) for name, kind in COMPARED.items()).sort("lr")
