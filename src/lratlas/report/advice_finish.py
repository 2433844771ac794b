"""How to train in full at the advised LR, as code: both ways to finish, and the start from the search's checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

from lratlas.search.advice import Advice

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
    """A piece of code with its heading and a sentence or two on it."""

    heading: str
    words: str
    code: str


def recipes(advice: Advice) -> list[Recipe]:
    """The ways to train at the advised LR, the advised one first; none without an LR."""
    if advice.lr is None:
        return []
    if advice.finish == "schedule":
        return [_scheduled(advice)]
    one = advice.counted.removesuffix("s")
    average = Recipe(
        heading="Average the last tenth",
        words="The LR stays constant. Averages are also validated after 1/8, 1/4 and 1/2 of the training; the best one"
        " is kept. This costs no extra training.",
        code=_AVERAGE.format(
            steps=advice.steps,
            one=one,
            lr=_number(advice.lr),
            better=">" if advice.direction == "maximize" else "<",
        ),
    )
    anneal = Recipe(
        heading="Anneal the last fifth",
        words=f"The LR goes linearly to zero over the last fifth of the {advice.counted}, as"
        f' advice.lr_at({one}, finish="anneal")'
        " says. Where parameter groups have different LRs, multiply all by the same factor.",
        code=_ANNEAL.format(steps=advice.steps, one=one, lr=_number(advice.lr), part=f"{advice.steps / 5:g}"),
    )
    ways = [anneal, average] if advice.finish == "anneal" else [average, anneal]
    return [*ways, *_continued(advice)]


def _scheduled(advice: Advice) -> Recipe:
    return Recipe(
        heading="Keep your schedule",
        words="The advised LR is what the schedule multiplies: give it to the optimizer as the initial LR, and keep the"
        " scheduler and the warm-up as they are.",
        code=f"optimizer = make_optimizer(lr={_number(advice.lr or 0.0)})\n",
    )


def _continued(advice: Advice) -> list[Recipe]:
    """The start from the checkpoint of the search, where there is one."""
    if advice.checkpoint is None or advice.segment is None:
        return []
    lr, done = done_by(advice.segment)
    return [
        Recipe(
            heading="Start from the search's checkpoint",
            words=f"The search has trained {done:,} of the {advice.length(advice.steps)} at LR {lr:.3g}, the nearest"
            " one that it tried. Its weights are in the checkpoint; the state of the optimizer is not, and starts from"
            " scratch."
            f"{_missed(done, advice.steps)}",
            code=_CONTINUE.format(checkpoint=advice.checkpoint.name, done=done, steps=advice.steps, one="step"),
        )
    ]


def _missed(done: int, steps: int) -> str:
    """Which of the averages a training that starts from the checkpoint comes too late for, in a sentence."""
    late = [f"1/{part}" for part in (8, 4, 2) if steps // part - steps // part // 10 < done]
    if not late:
        return ""
    return (
        f" This start is too late for the averages after {_listed(late)} of the training: an average needs the tenth"
        " of the steps before its end. To validate these too, train from fresh weights."
    )


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


def done_by(segment: str) -> tuple[float, int]:
    """The LR and the steps that the name of a segment says.

    Example:
        >>> done_by("lr0.316228-seed0-to278")
        (0.316228, 278)
    """
    start, _, steps = segment.rpartition("-to")
    return float(start.partition("-seed")[0].removeprefix("lr")), int(steps)


def _number(lr: float) -> str:
    return f"{lr:.3g}"
