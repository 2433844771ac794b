"""The PLRs of a study on the two sides of its convergence threshold: below, just above and beyond."""

from dataclasses import dataclass
from functools import cached_property

import polars as pl

from lratlas.tables import Tables, table


@dataclass(frozen=True, kw_only=True)
class Sides:
    """A study, seen from its convergence threshold.

    Attributes:
        regimes: The table of regimes.
        boundaries: The table of boundaries.
    """

    regimes: pl.DataFrame
    boundaries: pl.DataFrame

    @cached_property
    def threshold(self) -> dict[str, float | None]:
        """The row of the convergence threshold, all null where it is not reached."""
        rows = self.boundaries.filter(boundary="convergence").to_dicts()
        return rows[0] if rows else dict.fromkeys(("below", "above", "value", "low", "high"))

    def of(self, *regimes: str, below: bool = False) -> list[float]:
        """The PLRs of these regimes on one side of the convergence threshold, ascending; none where there is none."""
        side = self.threshold["below" if below else "above"]
        if side is None:
            return []
        inside = pl.col("plr") <= side if below else pl.col("plr") >= side
        return self.regimes.filter(inside, pl.col("regime").is_in(regimes)).sort("plr")["plr"].to_list()

    @cached_property
    def below(self) -> list[float]:
        """The PLRs of regime 1 below the threshold."""
        return self.of("1", below=True)

    @cached_property
    def near(self) -> list[float]:
        """The PLRs just above the threshold: subregime 2A, or the lowest PLR of regime 2 where there is no 2A."""
        return self.of("2A") or self.of("2", "2B")[:1]

    @cached_property
    def beyond(self) -> list[float]:
        """The decided PLRs above those: the rest of regime 2, and regime 3."""
        return [plr for plr in self.of("2", "2B", "3") if not self.near or plr > self.near[-1]]


def sides_of(tables: Tables) -> Sides:
    """The sides of a study; none has a PLR where the study has no ``regimes`` or no ``boundaries``."""
    return Sides(regimes=table(tables, "regimes"), boundaries=table(tables, "boundaries"))
