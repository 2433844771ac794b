"""The chart and the table of a comparison of studies."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from lratlas.analysis.comparison import Entry
from lratlas.analysis.scores import GAIN, Score, fine_tuned_runs, means, score_of
from lratlas.errors import StudyError
from lratlas.report import theme
from lratlas.report.axes import log_axis
from lratlas.report.frames import lr_text
from lratlas.report.rows import inline
from lratlas.report.theme import Drawing, Text
from lratlas.text import signed_interval

# Okabe and Ito's colours without yellow, which is faint on white; dashes distinguish studies without colour.
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#C48600", "#2E96D1", "#828282")
_DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 2])
# Accuracies more points below the best than this are cut off, to leave room for the others.
_DEEPEST = -25.0

TEXT = Text(
    heading="Quality against the PLR as a multiple of the convergence threshold",
    caption="The score after fine-tuning with the lowest FLR, mean over seeds, for PLRs with all "
    "seeds. Each line shows the difference from the study's best PLR, so tasks of different "
    "difficulty share one axis, and zero is the best initial LR. Training converges left of "
    "1, and does not converge right of 1. The threshold is between two PLRs of each study's "
    "grid, so multiples are exact to one step of that grid. Differences above 25 points of "
    "accuracy are drawn at the lower edge.",
    alt="Line chart of the test score after fine-tuning, as the difference from the best of each study, against the "
    "pre-training learning rate divided by the study's convergence threshold on a log axis; one line for each study, "
    "and a vertical rule at one.",
)


def comparison_data(entries: Sequence[Entry]) -> pl.DataFrame:
    """The mean score of each study after fine-tuning with its lowest FLR.

    Studies listed by `why_left_out` are left out.

    Args:
        entries: The studies.

    Returns:
        One row per study and PLR, studies in the order given: ``study``, ``plr``, ``multiple`` (of the convergence
        threshold), ``value`` (the test accuracy, or the test loss if no study has accuracies),
        ``difference`` (from the study's best), ``seeds``.
    """
    away = why_left_out(entries)
    parts = [_curve(entry) for entry in entries if entry.name not in away]
    floats = dict.fromkeys(("plr", "multiple", "value", "difference"), pl.Float64)
    schema = pl.Schema({"study": pl.String, **floats, "seeds": pl.Int64})
    return pl.concat([schema.to_frame(), *(part.select(schema.names()).cast(schema) for part in parts)])


def why_left_out(entries: Sequence[Entry]) -> dict[str, str]:
    """Why studies are missing from the chart: one sentence per missing study, by name."""
    reasons = {entry.name: _lacks(entry) for entry in entries}
    scores = {entry.name: _entry_score(entry).column for entry in entries if not reasons[entry.name]}
    if "test_accuracy" in scores.values():
        reasons |= {
            name: f"{name} reports losses, which cannot share an axis with accuracies."
            for name, column in scores.items()
            if column != "test_accuracy"
        }
    return {name: reason for name, reason in reasons.items() if reason}


def comparison_chart(entries: Sequence[Entry]) -> Drawing:
    """Draw `comparison_data`: log axis of the multiple, a rule at 1, colour and dash per study.

    Args:
        entries: The studies.

    Raises:
        StudyError: All studies are left out.
    """
    data = comparison_data(entries)
    if data.is_empty():
        reasons = " ".join(why_left_out(entries).values())
        raise StudyError(f"The comparison chart has nothing to show. {reasons}".strip())
    scores = {entry.name: _entry_score(entry) for entry in entries}
    score = scores[data["study"][0]]
    if score.more_is_better:
        data = data.with_columns(pl.col("difference") * 100)
    ends = data.select(low=pl.min_horizontal(pl.col("multiple").min(), 1), high=pl.max_horizontal("multiple", 1).max())
    low, high = ends.row(0)
    pick = alt.selection_point(name="pick", fields=["study"], bind="legend", toggle="true")
    base = alt.Chart(inline(data)).encode(
        x=alt.X("multiple:Q")
        .scale(type="log", domain=[low, high], nice=False, padding=12)
        .title("pre-training LR / convergence threshold")
        .axis(_multiples(log_axis(low, high))),
        y=_difference(data, score),
        color=_by_study(alt.Color, data, _COLOURS),
        opacity=alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.1)),
    )
    lines = base.mark_line(clip=True, strokeWidth=1.8).encode(strokeDash=_by_study(alt.StrokeDash, data, _DASHES))
    points = base.mark_point(filled=True, clip=True, size=36)
    # Larger than the visible points, so that a finger or an unsteady hand can hit them.
    targets = base.mark_circle(clip=True, size=400).encode(
        opacity=alt.value(0),
        tooltip=[
            alt.Tooltip("study:N"),
            theme.plr_tip(),
            alt.Tooltip("multiple:Q").title("PLR / threshold").format(".3~g"),
            alt.Tooltip("value:Q").title(score.name).format(theme.PERCENT if score.more_is_better else ".4~g"),
            alt.Tooltip("difference:Q").title(f"from its best{_unit(score)}").format(".3~g"),
            alt.Tooltip("seeds:Q"),
        ],
    )
    one = alt.Chart(alt.InlineData(values=[{"at": 1}])).mark_rule(strokeDash=[3, 3], color=theme.NEUTRAL)
    layers = [one.encode(x=alt.X("at:Q")), lines.add_params(pick, theme.zoom("comparison")), points, targets]
    return theme.finish(alt.LayerChart(layer=layers).properties(width=745, height=360), TEXT)


def _entry_score(entry: Entry) -> Score:
    return score_of(entry.tables["runs"])


def _curve(entry: Entry) -> pl.DataFrame:
    """The mean score at each PLR; no rows if no PLR was fine-tuned in all seeds."""
    score = _entry_score(entry)
    found = means(fine_tuned_runs(entry.tables["runs"]), score, "plr")
    if found.is_empty():
        return found
    return found.with_columns(
        study=pl.lit(entry.name),
        multiple=pl.col("plr") / entry.threshold,
        difference=pl.col("value") - score.best(found)["value"],
    )


def _lacks(entry: Entry) -> str:
    if entry.threshold is None:
        return f"{entry.name} has no convergence threshold within its PLRs."
    return f"{entry.name} has no PLR fine-tuned in all seeds." if _curve(entry).is_empty() else ""


def _difference(data: pl.DataFrame, score: Score) -> alt.Y:
    axis = alt.Y("difference:Q").title(f"{score.name}, difference from the study's best{_unit(score)}")
    if not score.more_is_better:
        return axis.scale(zero=True)
    lowest: float = data.select(pl.max_horizontal(pl.col("difference").min(), pl.lit(_DEEPEST))).item()
    return axis.scale(domain=[min(lowest, -1.0), 0.5], nice=False)


def _unit(score: Score) -> str:
    return ", points" if score.more_is_better else ""


def _multiples(axis: alt.Axis) -> alt.Axis:
    """The axis with plain multiples: 0.1, 1, 10."""
    axis.format = "~g"
    return axis


def _by_study(channel: Any, data: pl.DataFrame, looks: Sequence[object]) -> Any:
    """A channel that assigns the looks to the studies in turn, with a legend of untruncated names."""
    names = data["study"].unique(maintain_order=True).to_list()
    turns = [looks[i % len(looks)] for i in range(len(names))]
    legend: Mapping[str, Any] = {"orient": "bottom", "direction": "vertical", "labelLimit": 0, "symbolSize": 400}
    return (
        channel("study:N")
        .scale(domain=names, range=turns)
        .sort(None)
        .title(None)
        .legend(alt.Legend(symbolType="stroke", symbolOpacity=1, **legend))
    )


ABSENT = "–"
Row = Mapping[str, Any]

NOTE = (
    f"Intervals are 95% over seeds; – marks missing values. A gain is {GAIN}, paired by seed. The good range: "
    "neighbouring PLRs within one point of the best (1% for a loss)."
)


def readable(table: pl.DataFrame) -> pl.DataFrame:
    """The table of `lratlas.analysis.comparison.comparison`, transposed and in words.

    Args:
        table: One row per study.

    Returns:
        A first column of headings, without a name, then a column of texts per study, named after it; ``–`` for missing
        values.
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
    return lambda row: _text(row[column], lambda value: f"{100 * value:.1f}%" if _is_share(row) else f"{value:.4g}")


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
        return f"only {lr_text(row['good_low'])}"
    return f"{lr_text(row['good_low'])} to {lr_text(row['good_high'])}, factor {row['good_factor']:.2g}"


def _is_share(row: Row) -> bool:
    return row["score"] == "test_accuracy"


def _text(value: Any, form: Callable[[Any], str]) -> str:
    return ABSENT if value is None else form(value)


# The heading of each line, and the function that formats a study's cell.
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
