"""The columns that other people rely on, and empty tables."""

import polars as pl
import pytest

from lratlas.tables import SCHEMAS, empty

CONTRACT = {
    "runs": "run stage parent plr plr2 flr count seed data_seed steps diverged train_loss train_accuracy test_loss"
    " test_accuracy gradient_norm seconds",
    "traces": "run step epoch train_loss train_accuracy test_loss test_accuracy gradient_norm weight_norm",
    "regimes": "plr regime",
    "boundaries": "boundary below above value low high",
    "pairs": "plr seed a b angle train_barrier test_barrier",
    "features": "run stage plr flr count seed feature accuracy",
    "bands": "run stage plr flr count seed low high kept accuracy",
}


@pytest.mark.parametrize("table", CONTRACT)
def test_the_tables_have_the_columns_of_the_contract_in_order(table: str) -> None:
    promised = CONTRACT[table].split()
    assert SCHEMAS[table].names()[: len(promised)] == promised


@pytest.mark.parametrize("table", SCHEMAS)
def test_an_empty_table_has_the_schema_and_takes_rows(table: str) -> None:
    frame = empty(table)
    assert frame.is_empty()
    assert frame.schema == SCHEMAS[table]
    row = pl.DataFrame({name: [None] for name in SCHEMAS[table]}, schema=SCHEMAS[table])
    assert pl.concat([frame, row]).height == 1


def test_numbers_are_of_the_widest_types() -> None:
    kinds = {kind for schema in SCHEMAS.values() for kind in schema.dtypes()}
    assert kinds <= {pl.String(), pl.Float64(), pl.Int64(), pl.Boolean()}


def test_there_is_no_empty_table_of_another_name() -> None:
    with pytest.raises(KeyError):
        empty("nothing")
