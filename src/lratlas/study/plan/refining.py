"""Bisection of a boundary between regimes: which PLR to train next, given what the tables say so far."""

from collections.abc import Iterable
from itertools import pairwise

import polars as pl

from lratlas.errors import StudyError
from lratlas.study.spec.sections import RefineSpec, Spec
from lratlas.tables import Tables

_DIGITS = 5  # of an added PLR: enough for any ratio that can be asked for


def next_plr(tables: Tables, refine: RefineSpec) -> float | None:
    """The PLR that halves, on a log scale, the widest gap in the bracket of a boundary; None if all are narrow enough.

    The bracket ends at PLRs that have a regime. Where undecided ones lie between them, they divide it too.

    Args:
        tables: A study's tables; ``boundaries`` and ``regimes`` are read.
        refine: Which boundary, and the ratio at which a gap is narrow enough.

    Raises:
        StudyError: All PLRs lie on one side of the boundary.
    """
    row = tables["boundaries"].row(by_predicate=pl.col("boundary") == refine.boundary, named=True)
    regimes = tables["regimes"].sort("plr")
    if row["value"] is None:
        found = ", ".join(regimes["regime"].unique(maintain_order=True))
        low, high = regimes["plr"][0], regimes["plr"][-1]
        raise StudyError(
            f"The {refine.boundary} boundary cannot be bisected: the ends of the grid, {low:g} and {high:g}, do not lie"
            f" on two sides of it (found: {found}); give pretrain.lrs that do."
        )
    inside = regimes.filter(pl.col("plr").is_between(row["below"], row["above"]))["plr"].to_list()
    low, high = max(pairwise(inside), key=lambda gap: gap[1] / gap[0])
    middle = float(f"{(low * high) ** 0.5:.{_DIGITS}g}")
    return middle if high / low > refine.ratio and low < middle < high else None


def with_plrs(spec: Spec, plrs: Iterable[float]) -> Spec:
    """The spec with more pre-training LRs."""
    lrs = tuple(sorted({*spec.pretrain.lrs, *map(float, plrs)}))
    return spec.model_copy(update={"pretrain": spec.pretrain.model_copy(update={"lrs": lrs})})
