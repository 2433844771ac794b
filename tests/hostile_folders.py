"""A study and a search as a stranger would prepare them, and modules that nobody should import."""

import re
import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import tomli_w

from lratlas.files import open_json, seal_json
from lratlas.measure.base import Chart
from lratlas.study.description import Description, write_description
from lratlas.study.folder import JOURNAL
from lratlas.study.store import Store

MARK = "imported-by-mistake"
"""The file that a hostile module leaves next to it when it is imported."""
SIGNS = "\x1b[31m\x1b]0;owned\x07\x9b2J\u202e\u2066\x08\x7fname"
"""Colours, a title, a cleared screen, letters turned around, and what is before written over."""
FORMULA = '=HYPERLINK("http://example.org","x")'
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What no output may hold."""


def plant_modules(folder: Path, *names: str) -> None:
    """Modules that leave a mark when they are imported."""
    for name in names:
        (folder / f"{name}.py").write_text(
            f"import pathlib\npathlib.Path({str(folder / MARK)!r}).touch()\nraise SystemExit('imported {name}')\n"
        )


def make_hostile_study(folder: Path) -> None:
    """Give a study hostile names and tables, and a spec that names code in every place."""
    spec = tomllib.loads((folder / "spec.toml").read_text(encoding="utf-8"))
    rule = {"name": "evil:f"}
    spec |= {"name": SIGNS + FORMULA, "task": {"preset": "ticks", "loss": "evil:f", "rule": rule}}
    spec["measure"] = {"extra": ["evil:f"]}
    (folder / "spec.toml").write_text(tomli_w.dumps(spec), encoding="utf-8")
    _reseal(folder / "plan.json", "task", SIGNS)
    store = Store.open(folder)
    chart = Chart(y="value", series="note", title=SIGNS)
    write_description(store, "extra", Description(columns={"note": "String", "value": "Float64"}, chart=chart))
    runs = Store.open(folder).read_table("runs").filter(stage="pretrain").select("run", "stage", "plr", "seed")
    rows = runs.with_columns(flr=pl.lit(None, pl.Float64), count=pl.lit(None, pl.Int64), value=pl.lit(1.0))
    notes = pl.concat([rows.with_columns(note=pl.lit(note)) for note in (SIGNS, FORMULA)])
    Store.open(folder).write_table("extra", "part", notes)
    (folder / "tables" / "runs" / f"{SIGNS}.parquet").write_bytes(b"")


def make_hostile_search(folder: Path, reason: str) -> None:
    """Have the segments of a search that failed for a reason fail for another."""
    lines = (folder / JOURNAL).read_text(encoding="utf-8").splitlines()
    (folder / JOURNAL).write_text(
        "".join(seal_json(_replace(open_json(line), reason, SIGNS + FORMULA)) for line in lines), encoding="utf-8"
    )


def _reseal(path: Path, key: str, value: object) -> None:
    path.write_text(seal_json(open_json(path.read_text(encoding="utf-8")) | {key: value}), encoding="utf-8")


def _replace(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _replace(part, old, new) for key, part in value.items()}
    return new if value == old else value
