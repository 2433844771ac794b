"""A change of structure changes no result: stored studies are analysed as on the day that they were stored.

The studies of `benchmarks.same_tables`, trained and analysed before the package was laid out as it is. Only the
analysis is repeated here, for training rounds differently on other machines.

A change that is meant to change a result stores the tables again and says why.
"""

from pathlib import Path

import polars as pl
import polars.selectors as cs
import pytest
from polars.testing import assert_frame_equal

from lratlas.atlas import load

STORED = Path(__file__).parent / "stored"
WORDED = ("statement",)  # sentences may be put in other words


@pytest.mark.parametrize("table", ["regimes", "boundaries", "claims", "sparsity", "power_law"])
@pytest.mark.parametrize("study", sorted(path.name for path in STORED.iterdir()))
def test_a_stored_study_is_analysed_as_before(study: str, table: str) -> None:
    before = pl.read_parquet(STORED / study / f"{table}.parquet").drop(WORDED, strict=False)
    now = load(STORED / study).table(table).drop(WORDED, strict=False)
    exact = ~cs.float()
    assert_frame_equal(now.select(exact), before.select(exact), check_row_order=True)
    assert_frame_equal(now, before, check_exact=False, rel_tol=1e-9, abs_tol=1e-12)


def test_the_stored_studies_show_what_matters() -> None:
    """All regimes, all boundaries and three verdicts are among them, so that the comparison is not of empty tables."""
    tables = {
        name: pl.concat([pl.read_parquet(path) for path in STORED.glob(f"*/{name}.parquet")], how="diagonal")
        for name in ("regimes", "boundaries", "claims")
    }
    assert {"1", "2A", "2B", "3"} <= {*tables["regimes"]["regime"]}
    assert {*tables["boundaries"].drop_nulls("value")["boundary"]} == {"convergence", "subregime", "divergence"}
    assert {"supported", "contradicted", "inconclusive"} <= {*tables["claims"]["verdict"]}
