"""The tables that a page carries: complete, rounded as it says, and never too large."""

import base64
import gzip
import io
import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lratlas.report.shell import DIGITS, Download, compress, downloads
from lratlas.tables import SCHEMAS, Tables, empty


def unpacked(content: str | None) -> str:
    assert content is not None
    return gzip.decompress(base64.b64decode(content)).decode()


def csv(tables: Tables, name: str) -> pl.DataFrame:
    (found,) = (item for item in downloads(tables) if item.table == name)
    return pl.read_csv(io.StringIO(unpacked(found.content)), schema=SCHEMAS[name])


def power_law(values: list[float | None]) -> Tables:
    rows = [{"parameter": "scale", "value": value} for value in values]
    return {"power_law": pl.DataFrame(rows, schema=SCHEMAS["power_law"])}


def noise(table: str, rows: int) -> pl.DataFrame:
    """Rows that hardly compress."""
    values = [math.sin(17.0 * i * i) for i in range(rows)]
    return pl.DataFrame({name: values if kind.is_float() else None for name, kind in SCHEMAS[table].items()})


@given(st.binary())
def test_packing_loses_nothing_and_is_always_the_same(data: bytes) -> None:
    assert gzip.decompress(base64.b64decode(compress(data))) == data
    assert compress(data) == compress(data)


def test_every_table_with_rows_is_there_whole(tables: Tables) -> None:
    found = downloads({**tables, "sparsity": empty("sparsity")})
    assert [item.table for item in found] == [name for name in SCHEMAS if name in tables]
    for item in found:
        assert item.rows == tables[item.table].height
        assert unpacked(item.content).splitlines()[0] == ",".join(tables[item.table].columns)
    for name in ("runs", "pairs"):
        exact = [column for column, kind in SCHEMAS[name].items() if not kind.is_float()]
        assert csv(tables, name).select(exact).equals(tables[name].select(exact))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e30, max_value=1e30), min_size=1))
def test_numbers_keep_six_digits(values: list[float]) -> None:
    for read, value in zip(csv(power_law([*values]), "power_law")["value"], values, strict=True):
        assert read == pytest.approx(value, rel=0.51 * 10 ** (1 - DIGITS), abs=1e-300)


def test_numbers_that_are_none_are_empty() -> None:
    text = unpacked(downloads(power_law([math.nan, None, 0.25]))[0].content)
    assert text.splitlines() == ["parameter,value,low,high", "scale,,,", "scale,,,", "scale,0.25,,"]


def test_what_does_not_fit_is_left_out_and_nothing_else() -> None:
    tables = {name: noise(name, rows) for name, rows in (("traces", 4_000), ("pairs", 40), ("boundaries", 3))}
    sizes = {item.table: len(item.content or "") for item in downloads(tables)}
    assert sizes["traces"] > 10 * sizes["pairs"]
    limited = downloads(tables, budget=sizes["pairs"] + sizes["boundaries"])
    assert [(item.table, item.content is None) for item in limited] == [
        ("traces", True), ("boundaries", False), ("pairs", False),
    ]  # fmt: skip
    assert limited[0] == Download(table="traces", rows=4_000, content=None)
    assert sum(item.content is not None for item in downloads(tables, budget=sum(sizes.values()) - 1)) == 2
    assert all(item.content for item in downloads(tables, budget=sum(sizes.values())))


def test_a_huge_table_is_not_even_tried() -> None:
    """Rows that would compress to next to nothing, but of which there are too many to unpack in a browser."""
    runs = pl.DataFrame({name: [None] for name in SCHEMAS["boundaries"]}, schema=SCHEMAS["boundaries"])
    huge = pl.concat([runs] * 2).select(pl.all().repeat_by(2_000_000).explode())
    assert downloads({"boundaries": huge})[0] == Download(table="boundaries", rows=4_000_000, content=None)
