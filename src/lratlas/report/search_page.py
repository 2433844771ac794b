"""The page of a search."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from lratlas.report.bundle import vega_bundle
from lratlas.report.charts.advice import part_text
from lratlas.report.frames import lr_text
from lratlas.report.shell import compress, environment, pack_spec, part, policy, text_of
from lratlas.report.theme import REGIME_COLOURS, Drawing
from lratlas.search.advice import Advice
from lratlas.tables import csv_text

ABSENT = "–"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell: its text, and the number or text to sort by."""

    text: str
    key: float | str


def evidence_rows(advice: Advice) -> list[list[Cell]]:
    """The cells of each row of the evidence, in the order of `HEADINGS`."""
    return [[_cell(column, row, advice) for column in HEADINGS] for row in advice.evidence.to_dicts()]


def headings(advice: Advice) -> list[str]:
    """The heading of each column."""
    return [advice.counted if column == "steps" else heading for column, heading in HEADINGS.items()]


def _metric(value: float) -> str:
    return f"{value:.5g}"


# The heading of each column, and the meaning of its values.
HEADINGS: Mapping[str, str] = {
    "lr": "LR",
    "seed": "seed",
    "steps": "steps",
    "part": "share",
    "annealed": "LR at the end",
    "averaged": "averaged weights",
    "value": "last weights",
    "regime": "regime",
    "seconds": "seconds",
    "failure": "failure",
}

_FORMS: Mapping[str, Callable[[Any], str]] = {
    "lr": lr_text,
    "steps": "{:,}".format,
    "averaged": _metric,
    "value": _metric,
    "seconds": "{:,.1f}".format,
}


def schedule_text(advice: Advice) -> str:
    """The schedule of the LR in words, such as ``cosine schedule``."""
    return advice.schedule if advice.schedule == "constant" else f"{advice.schedule} schedule"


def _cell(column: str, row: Mapping[str, Any], advice: Advice) -> Cell:
    if column == "part":
        share = row["steps"] / advice.steps
        return Cell(text=f"{share:.2g}" if row["annealed"] else part_text(row["steps"], of=advice.steps), key=share)
    value = row[column]
    if column == "annealed":
        return Cell(text="annealed" if value else schedule_text(advice), key=value)
    if value is None:
        return Cell(text=ABSENT, key="")
    return Cell(text=_FORMS.get(column, str)(value), key=value if isinstance(value, float | int) else str(value))


_AVERAGE = """\
import copy

from torch.optim.swa_utils import AveragedModel, update_bn

best, kept, averaged = None, None, None
ends = [{steps} // 8, {steps} // 4, {steps} // 2, {steps}]
for {one} in range({steps}):
    train_one_{one}(model, optimizer)  # at LR {lr}
    end = next(end for end in ends if {one} < end)
    if {one} >= end - max(1, end // 10):  # the last tenth before each end
        averaged = averaged or AveragedModel(model)
        averaged.update_parameters(model)
    if {one} + 1 == end:
        update_bn(train_loader, averaged)  # for models with batch norm
        metric = validate(averaged)
        if best is None or metric {better} best:
            best, kept = metric, copy.deepcopy(averaged.module)
        averaged = None  # kept has the best average so far
"""
_ANNEAL = """\
for {one} in range({steps}):
    for group in optimizer.param_groups:
        group["lr"] = {lr} * min(1, ({steps} - {one}) / {part})
    train_one_{one}(model, optimizer)
"""
_CONTINUE = """\
from safetensors.torch import load_file

model.load_state_dict(load_file("{checkpoint}"))
for {one} in range({done}, {steps}):
    ...  # as above
"""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A piece of code with a heading and a short explanation."""

    heading: str
    words: str
    code: str


def recipes(advice: Advice) -> list[Recipe]:
    """The ways to train at the advised LR, the recommended one first; none without an LR."""
    if advice.lr is None:
        return []
    if advice.finish == "schedule":
        return [_schedule_recipe(advice)]
    one = advice.counted.removesuffix("s")
    average = Recipe(
        heading="Average the last tenth",
        words="The LR stays constant. Averages are also validated after 1/8, 1/4 and 1/2 of the training; the best "
        "one is saved. This costs no extra training.",
        code=_AVERAGE.format(
            steps=advice.steps,
            one=one,
            lr=lr_text(advice.lr),
            better=">" if advice.direction == "maximize" else "<",
        ),
    )
    anneal = Recipe(
        heading="Anneal the last fifth",
        words=f"The LR goes linearly to zero over the last fifth of the {advice.counted}, as"
        f' advice.lr_at({one}, finish="anneal")'
        " says. Where parameter groups have different LRs, multiply all by the same factor.",
        code=_ANNEAL.format(steps=advice.steps, one=one, lr=lr_text(advice.lr), part=f"{advice.steps / 5:g}"),
    )
    ways = [anneal, average] if advice.finish == "anneal" else [average, anneal]
    return [*ways, *_continuation_recipes(advice)]


def _schedule_recipe(advice: Advice) -> Recipe:
    return Recipe(
        heading="Keep your schedule",
        words="The schedule multiplies the advised LR: pass it to the optimizer as the initial LR, "
        "and leave the scheduler and the warm-up unchanged.",
        code=f"optimizer = make_optimizer(lr={lr_text(advice.lr or 0.0)})\n",
    )


def _continuation_recipes(advice: Advice) -> list[Recipe]:
    """The way to start from the checkpoint of the search, if there is one."""
    if advice.checkpoint is None or advice.segment is None:
        return []
    lr, done = parse_segment(advice.segment)
    return [
        Recipe(
            heading="Start from the search's checkpoint",
            words=f"The search has trained {done:,} of the {advice.length(advice.steps)} at LR {lr_text(lr)}, the "
            "nearest one that it tried. The checkpoint has the weights but not the state of the optimizer, which starts"
            " from scratch."
            f"{_describe_missed(done, advice.steps)}",
            code=_CONTINUE.format(checkpoint=advice.checkpoint.name, done=done, steps=advice.steps, one="step"),
        )
    ]


def _describe_missed(done: int, steps: int) -> str:
    """A sentence on the averages that a training from the checkpoint starts too late for."""
    late = [f"1/{part}" for part in (8, 4, 2) if steps // part - steps // part // 10 < done]
    if not late:
        return ""
    return (
        f" This start is too late for the averages after {_join_parts(late)} of the training: an average needs the"
        " tenth of the steps before its end. To validate these too, train from fresh weights."
    )


def _join_parts(parts: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


def parse_segment(segment: str) -> tuple[float, int]:
    """The LR and the steps from the name of a segment.

    Example:
        >>> parse_segment("lr0.316228-seed0-to278")
        (0.316228, 278)
    """
    start, _, steps = segment.rpartition("-to")
    return float(start.partition("-seed")[0].removeprefix("lr")), int(steps)


METHOD = (
    "Every LR is trained for 1/64 of a full training, with the same initial weights and batches. The better LRs"
    " continue for twice as long each time, ranked by the validation metric of their averaged weights (of the last"
    " ones under a schedule). Until an LR has learned something, LRs are not ranked but thinned out evenly.",
    "LRs are compared at one length at a time. A difference counts if it exceeds the noise of the validation set and of"
    " the seed at the level of 5%. Budget above 1.5 buys further seeds of the LRs within the noise, then longer"
    " trainings.",
    "The recommended LR is the mean, over log LR, of the LRs within the noise of the best one at the longest length. It"
    " is then lowered for the part that was not trained. The good range ends where LRs fall behind by more than noise "
    "and tolerance.",
    "The expected metric is a projection, not a measurement: each further doubling of the length is assumed to gain"
    " less than the one before it.",
    "Regimes follow from the training losses of each LR, as in lratlas.watch.",
)
"""The decision rules of a search, in a few sentences."""

REGIME_WORDS: Mapping[str, str] = {
    "converging": "regime 1: the loss falls, or is near zero",
    "equilibrium": "regime 2: the loss is stationary above zero",
    "diverging": "regime 3: the loss is not finite, or nothing was learned",
    "undecided": "too early, too noisy, or no losses are known",
}

_COLOURS = tuple(REGIME_COLOURS[name] for name in ("1", "2", "3", "undecided"))


def advice_page(
    advice: Advice, charts: Mapping[str, Drawing], *, facts: Mapping[str, str], progress: str = "", live: bool = False
) -> str:
    """The whole advice as one HTML text, with the look and the network isolation of a study's report.

    All text is escaped, never interpreted as HTML.

    Args:
        advice: The result of the search.
        charts: ``advice`` and, if LRs continued, ``course``.
        facts: The cost of the search and the provenance of the page, by name.
        progress: The progress of an unfinished search; empty for a finished one.
        live: The page follows the search through its server, the only one that it may contact.
    """
    # live.js saves the original page, so it runs before any drawing.
    scripts = [vega_bundle(), *([part("live.js")] if live else []), part("report.js"), part("sort.js")]
    headline, *rest = advice.statement.splitlines()
    tables = {"evidence": advice.evidence, "compared": advice.compared}
    regimes = set(advice.evidence["regime"])
    return (
        environment()
        .get_template("advice.html.j2")
        .render(
            headline=headline,
            progress=progress,
            rest=rest,
            warnings=advice.warnings,
            recipes=recipes(advice),
            figures={name: text_of(name, chart) for name, chart in charts.items()},
            specs={name: pack_spec(chart) for name, chart in charts.items()},
            headings=headings(advice),
            rows=evidence_rows(advice),
            regime_words={name: words for name, words in REGIME_WORDS.items() if name in regimes},
            regime_colours=dict(zip(REGIME_WORDS, _COLOURS, strict=True)),
            csvs={name: compress(_csv(frame)) for name, frame in tables.items()},
            method=METHOD,
            facts=facts,
            style=part("report.css"),
            scripts=scripts,
            policy=policy(scripts, live=live),
        )
    )


def _csv(frame: pl.DataFrame) -> bytes:
    return csv_text(frame).encode()
