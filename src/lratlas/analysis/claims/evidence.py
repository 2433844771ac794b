"""Verdicts on the claims of the paper, and the numbers behind them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl

from lratlas.analysis.estimates import FEWEST_SEEDS, Floats, Gain, over_seeds
from lratlas.analysis.scores import Sides, sides_of
from lratlas.tables import Tables, drop_diverged_scores, empty
from lratlas.text import format_lr, plain, signed_interval
from lratlas.thresholds import Thresholds

Verdict = Literal["supported", "contradicted", "inconclusive", "not measured"]
# Half a point of accuracy, or half a percent of a loss, is negligible.
NEGLIGIBLE = 0.005
# A difference that needs more seeds than this hardly matters.
MOST_SEEDS = 200


class Unanswered(Exception):  # noqa: N818 - not an error: it ends in a judgement
    """A study cannot answer a claim; the text says what is missing, and what to add."""

    verdict: Verdict = "inconclusive"


class NotMeasured(Unanswered):
    """The quantity of the claim was not measured."""

    verdict: Verdict = "not measured"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The judgement of a study on one claim.

    Attributes:
        verdict: Whether the claim holds here.
        statement: One sentence with numbers; for an open claim also what to add.
        effect: The size of the effect; None if it was not measured.
        low: Lower end of its 95% interval over seeds; None if there is none.
        high: Upper end.
    """

    verdict: Verdict
    statement: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None


def exceeds(effect: Gain, limit: float, *, negligible: float | None = None) -> Verdict:
    """Whether an effect is above a limit.

    Args:
        effect: The effect.
        limit: Supported if the whole interval is above this.
        negligible: Contradicted if the whole interval is below this: such a small effect does not matter. By default
            the limit.
    """
    if effect.low is None or effect.high is None:
        return "inconclusive"
    if effect.low > limit:
        return "supported"
    return "contradicted" if effect.high < (limit if negligible is None else negligible) else "inconclusive"


def opposite(verdict: Verdict) -> Verdict:
    """The verdict on the opposite claim."""
    turned: dict[Verdict, Verdict] = {"supported": "contradicted", "contradicted": "supported"}
    return turned.get(verdict, verdict)


def together(*verdicts: Verdict) -> Verdict:
    """The verdict on a claim of several parts: all must hold, and one contradiction is enough."""
    if "contradicted" in verdicts:
        return "contradicted"
    return "inconclusive" if "inconclusive" in verdicts else "supported"


def what_would_tell(effect: Gain, limit: float = 0.0, *, negligible: float | None = None) -> str:
    """The number of seeds that would probably separate an effect from a limit, in words.

    Args:
        effect: The effect.
        limit: A claim is supported above it.
        negligible: A claim is contradicted below it; by default the limit.
    """
    if effect.low is None or effect.high is None:
        have = "one seed is" if effect.seeds == 1 else f"{effect.seeds} seeds are"
        return f"{have} too few for an interval; repeat with at least {FEWEST_SEEDS} seeds, preferably 5 or more"
    lower = limit if negligible is None else negligible
    if lower <= effect.mean <= limit and lower < limit:
        return "the effect is neither small nor large"
    # The distance from the effect to the nearest limit that it could clear
    above = effect.mean > limit
    reach, distance = (
        (effect.mean - effect.low, effect.mean - limit) if above else (effect.high - effect.mean, lower - effect.mean)
    )
    needed = math.inf if distance <= 0 else effect.seeds * (reach / distance) ** 2
    if needed > MOST_SEEDS:
        return f"the difference is too small to detect with fewer than {MOST_SEEDS} seeds"
    return f"{effect.seeds} seeds are too few; about {max(math.ceil(needed), effect.seeds + 1)} should be enough"


# Neighbours of the threshold further apart than this factor, half a decade, may skip the range just above it.
WIDEST = 3.2
# The columns that identify the models of a table, and the measured columns.
_OF_MODELS = {
    "features": (["run"], ["accuracy"]),
    "bands": (["run"], ["accuracy"]),
    "pairs": (["plr", "seed"], ["angle", "train_barrier", "test_barrier"]),
}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A study, split at its convergence threshold.

    Attributes:
        tables: Its tables, with ``regimes`` and ``boundaries``.
        thresholds: The numbers that decided the regimes.
        chance_loss: Loss of the best constant prediction.
        runs: The result of `run_evidence` for the tables; None to compute it when needed.
    """

    tables: Tables
    thresholds: Thresholds
    chance_loss: float
    runs: pl.DataFrame | None = None

    def table(self, name: str) -> pl.DataFrame:
        """A table, empty if it is missing; measurements of diverged models are null."""
        table = self.tables.get(name, empty(name))
        if name == "runs":
            return drop_diverged_scores(table)
        if name not in _OF_MODELS or table.is_empty():
            return table
        keys, values = _OF_MODELS[name]
        lost = self.tables["runs"].filter("diverged").select(keys).unique().with_columns(lost=True)
        marked = table.join(lost, on=keys, how="left", maintain_order="left")
        return marked.with_columns(pl.when(pl.col("lost").is_null()).then(pl.col(v)).alias(v) for v in values).drop(
            "lost"
        )

    @cached_property
    def seeds(self) -> list[int]:
        """All seeds, ascending."""
        return self.table("runs")["seed"].unique().sort().to_list()

    @cached_property
    def sides(self) -> Sides:
        """The PLRs on the two sides of the threshold."""
        return sides_of(self.tables)

    @cached_property
    def coarse(self) -> str:
        """Why the PLRs may miss the range just above the threshold, and what to add; empty if they are dense there."""
        if not self.sides.below or not self.sides.near or self.sides.near[0] <= WIDEST * self.sides.below[-1]:
            return ""
        return f"add learning rates between {format_lr(self.sides.below[-1])} and {format_lr(self.sides.near[0])}"

    def must_span(self, *, beyond: bool = False) -> None:
        """Check that there are PLRs on both sides of the threshold, and beyond if requested.

        Raises:
            Unanswered: Some are missing.
        """
        regimes = self.table("regimes")["regime"].to_list()
        if "1" not in regimes:
            raise Unanswered("Inconclusive: no tested learning rate converges; add smaller ones, or train longer.")
        if not self.sides.near:
            raise Unanswered(
                "Inconclusive: no learning rate above the threshold stays on a plateau; add larger ones, or more "
                "near the threshold."
            )
        if beyond and not self.sides.beyond:
            raise Unanswered(
                "Inconclusive: no tested learning rate is beyond the range just above the threshold; add larger ones."
            )

    def found(
        self,
        verdict: Verdict,
        effect: Gain,
        said: str,
        *,
        open_because: str,
        near: bool = True,
        negligible: float | None = None,
    ) -> Judgement:
        """A judgement with its effect.

        Args:
            verdict: The verdict. A contradiction of a claim about the PLRs just above the threshold is open if the PLRs
                may miss that range.
            effect: The effect.
            said: The finding.
            open_because: What would decide the claim, if the verdict is inconclusive.
            near: Whether the claim is about the PLRs just above the threshold.
            negligible: An effect below this does not matter: half a point, or half a percent of a loss.
        """
        if near and verdict == "contradicted" and self.coarse:
            verdict, open_because = "inconclusive", f"the grid around the threshold is too coarse; {self.coarse}"
        some = (
            ""
            if effect.seeds == len(self.seeds)
            else f" Based on the {effect.seeds} of {len(self.seeds)} seeds that are complete."
        )
        tail = f" Inconclusive: {open_because}." if verdict == "inconclusive" else ""
        small = ""
        if verdict == "contradicted" and negligible and effect.high is not None and 0 <= effect.high < negligible:
            share = "half a point" if negligible == NEGLIGIBLE else "half a percent"
            small = f" The gain is negligible (under {share})."
        statement = said + small + some + tail
        return Judgement(verdict=verdict, statement=statement, effect=effect.mean, low=effect.low, high=effect.high)


def per_seed(frame: pl.DataFrame, plrs: Sequence[float], value: pl.Expr, seeds: Sequence[int]) -> Floats:
    """For each seed the mean of a value over the PLRs that all seeds have, so that seeds are comparable.

    Args:
        frame: Rows with ``plr`` and ``seed``.
        plrs: The PLRs in question.
        value: The averaged value, one per row; a PLR and seed may have several rows.
        seeds: The seeds, in this order.

    Returns:
        Shape (seeds,); all NaN if no PLR has every seed.
    """
    return (
        frame.filter(pl.col("plr").is_in(list(plrs)), pl.col("seed").is_in(list(seeds)))
        .with_columns(value=value.fill_nan(None))
        .drop_nulls("value")
        .group_by("plr", "seed")
        .agg(pl.col("value").mean())
        .filter(pl.len().over("plr") == len(seeds))
        .group_by("seed")
        .agg(pl.col("value").mean())
        .sort("seed")["value"]
        .extend_constant(float("nan"), len(seeds))
        .head(len(seeds))
        .to_numpy()
    )


def mean_of(values: Floats) -> Gain:
    """The mean over the seeds that have a value, with its interval.

    Raises:
        Unanswered: No seed has one.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        raise Unanswered("Inconclusive: no seed has measurements at all compared learning rates.")
    return over_seeds(known)


def clip_gain(effect: Gain, low: float, high: float) -> Gain:
    """An effect and its interval, clipped to two limits that it cannot exceed."""
    if effect.low is None or effect.high is None:
        return effect
    return replace(effect, low=max(effect.low, low), high=min(effect.high, high))


def describe_effect(effect: Gain, *, factor: float = 100, unit: str = " points") -> str:
    """An effect with its interval: ``2.7 points (95% interval −0.5 to 5.9)``."""
    number = plain(factor * effect.mean)
    size = f"{number}{unit.removesuffix('s') if number in {'1', '−1'} else unit}"
    if effect.low is None or effect.high is None or effect.low == effect.high:
        return size
    return f"{size} (95% interval {signed_interval(factor * effect.low, factor * effect.high)})"


def lr_range(plrs: Sequence[float]) -> str:
    """``1e-2`` or ``1e-2 to 2.4e-2``."""
    ends = [format_lr(plr) for plr in (plrs[0], plrs[-1])]
    return ends[0] if len(plrs) == 1 else " to ".join(ends)
