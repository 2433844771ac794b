"""A comparison as people read it: what was found down the side, a column for each study."""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from lratlas.analysis.quality import GAIN
from lratlas.analysis.wording import signed_interval
from lratlas.report.rows import lr_text

ABSENT = "–"
Row = Mapping[str, Any]

NOTE = (
    f"Intervals are 95 %, over seeds; – is what a study lacks. A gain is {GAIN}, paired by seed. The good range: "
    "neighbouring PLRs within one point of the best (one per cent of a loss)."
)


def readable(table: pl.DataFrame) -> pl.DataFrame:
    """The table of `lratlas.analysis.comparison.comparison`, transposed and in words.

    Args:
        table: One row per study.

    Returns:
        A first column of headings, without a name, then a column of texts for each study, named by it; ``–`` for what
        a study lacks.
    """
    studies = {row["study"]: [cell(row) for cell in _LINES.values()] for row in table.to_dicts()}
    return pl.DataFrame({"": list(_LINES), **studies})


def _plain(column: str) -> Callable[[Row], str]:
    return lambda row: _text(row[column], str)


def _lr(column: str) -> Callable[[Row], str]:
    return lambda row: _text(row[column], lr_text)


def _boundary(name: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
        return _text(value, lr_text) + ("" if low is None else f" ({lr_text(low)} to {lr_text(high)})")

    return cell


def _multiple(column: str) -> Callable[[Row], str]:
    return lambda row: _text(row[column], lambda value: f"{value:.2g}")


def _score(column: str) -> Callable[[Row], str]:
    return lambda row: _text(row[column], lambda value: f"{100 * value:.1f} %" if _is_share(row) else f"{value:.4g}")


def _gain(of: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        mean, low, high = (row[f"{of}_gain{end}"] for end in ("", "_low", "_high"))
        if mean is None:
            return ABSENT
        factor, unit = (100, " points") if _is_share(row) else (1, "")
        interval = "" if low is None else f" ({signed_interval(factor * low, factor * high)})"
        return f"{factor * mean:+.2g}{unit}{interval}".replace("-", "−").replace("+0 ", "0 ")

    return cell


def _good(row: Row) -> str:
    if row["good_low"] is None:
        return ABSENT
    if row["good_low"] == row["good_high"]:
        return f"{lr_text(row['good_low'])} alone"
    return f"{lr_text(row['good_low'])} to {lr_text(row['good_high'])}, factor {row['good_factor']:.2g}"


def _is_share(row: Row) -> bool:
    return row["score"] == "test_accuracy"


def _text(value: Any, form: Callable[[Any], str]) -> str:
    return ABSENT if value is None else form(value)


# Each line's heading, and how a study's cell is written.
_LINES: Mapping[str, Callable[[Row], str]] = {
    "task": _plain("task"),
    "batch size": _plain("batch_size"),
    "learning rates": lambda row: "effective" if row["elr"] else "as given",
    "seeds": _plain("seeds"),
    "score": lambda row: _text(row["score"], lambda name: name.replace("_", " ")),
    "convergence threshold (1 to 2)": _boundary("convergence"),
    "subregime boundary (2A to 2B)": _boundary("subregime"),
    "divergence boundary (2 to 3)": _boundary("divergence"),
    "fine-tuned, lowest FLR": _lr("best_flr"),
    "fine-tuned, best PLR": _lr("best_plr"),
    "fine-tuned, best PLR / threshold": _multiple("best_over_threshold"),
    "fine-tuned, score": _score("best_score"),
    "fine-tuned, gain": _gain("best"),
    "fine-tuned, good range": _good,
    "average, best PLR": _lr("average_plr"),
    "average, checkpoints": _plain("average_count"),
    "average, best PLR / threshold": _multiple("average_over_threshold"),
    "average, score": _score("average_score"),
    "average, gain": _gain("average"),
}
