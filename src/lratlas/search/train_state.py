"""The state of a stack of segments in the middle of its training, kept so that an interruption costs little."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lratlas.execute.checkpoints import read_segment, segment_tensors
from lratlas.search.segments import Segment
from lratlas.study.files import write_file
from lratlas.study.store import open_weights, seal_weights
from lratlas.training.averaging import Tails
from lratlas.training.state import Stack

_ENDING = ".part"
_PARTS = 8


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """What training a stack of segments came to so far.

    Attributes:
        stack: The stack.
        tails: Running sums of the checkpoints that are averaged.
        losses: Mean training losses, each [lanes], in order.
    """

    stack: Stack
    tails: Tails
    losses: tuple[Tensor, ...]


def stops(segments: Sequence[Segment], *, every: int) -> list[int]:
    """The steps at which a stack may be kept: seven between its start and its end, as evenly as rows of the trace lie.

    Args:
        segments: They begin and end at the same steps.
        every: Steps between two rows of the trace.
    """
    first = segments[0]
    length = max(every, first.steps // _PARTS // every * every)
    return list(range((first.start + length) // every * every, first.stop, length))


def keep(states: Path, segments: Sequence[Segment], so_far: TrainState) -> None:
    """Keep the stack in the folder of states, in the place of what was kept of it before."""
    tensors = segment_tensors(_names(segments), so_far.stack, so_far.tails, 0.0)
    tensors |= {"part/step": torch.tensor(so_far.stack.step), "part/losses": torch.stack(so_far.losses)}
    write_file(_path(states, segments), seal_weights(tensors))


def load_state(states: Path, segments: Sequence[Segment], *, count: int, device: torch.device) -> TrainState | None:
    """What was kept of a stack; None where there is nothing, or nothing that can be read.

    Args:
        states: The folder of states.
        segments: Those of the stack, in the same order.
        count: How many checkpoints are averaged.
        device: Where the tensors shall live.
    """
    try:
        tensors = open_weights(_path(states, segments).read_bytes())
        step = int(tensors["part/step"])
        stack, tails, _ = read_segment(tensors, _names(segments), counts=[count], step=step, device=device)
        losses = tuple(tensors["part/losses"].to(device))
    except (OSError, ValueError, KeyError):
        return None
    return TrainState(stack=stack, tails=tails, losses=losses)


def forget(states: Path, segments: Sequence[Segment]) -> None:
    """Remove what was kept of a stack."""
    _path(states, segments).unlink(missing_ok=True)


def forget_all(states: Path) -> None:
    """Remove what was kept of all stacks: also of those that were put together differently after an interruption."""
    for path in states.glob(f"*{_ENDING}"):
        path.unlink(missing_ok=True)


def _names(segments: Sequence[Segment]) -> list[list[str]]:
    return [[each.name for each in segments]]


def _path(states: Path, segments: Sequence[Segment]) -> Path:
    together = hashlib.sha256("/".join(each.name for each in segments).encode()).hexdigest()
    return states / f"{together[:16]}{_ENDING}"
