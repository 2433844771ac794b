"""The state of a stack of segments in the middle of its training, kept so that an interruption costs little."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from lratlas.execute.checkpoints import TrainState, read_state, state_tensors
from lratlas.search.journal import stated_paths
from lratlas.search.segments import Segment
from lratlas.study.files import write_file
from lratlas.study.store import open_weights, seal_weights

_ENDING = ".part"
_PARTS = 8


def stops(segments: Sequence[Segment], *, every: int) -> list[int]:
    """The steps at which a stack may be kept: seven between its start and its end, as evenly as rows of the trace lie.

    Args:
        segments: They begin and end at the same steps.
        every: Steps between two rows of the trace.
    """
    first = segments[0]
    length = max(every, first.steps // _PARTS // every * every)
    return list(range((first.start + length) // every * every, first.stop, length))


def store_state(states: Path, segments: Sequence[Segment], at: TrainState) -> None:
    """Store where a stack is in the folder of states, in the place of what was stored of it before."""
    path = _path(states, segments)
    write_file(path, seal_weights(state_tensors(_names(segments), at), stated_paths(path)[0]))


def load_state(states: Path, segments: Sequence[Segment], *, count: int, device: torch.device) -> TrainState | None:
    """What was stored of a stack; None where there is nothing, or nothing that can be read.

    Args:
        states: The folder of states.
        segments: Those of the stack, in the same order.
        count: How many checkpoints are averaged.
        device: Where the tensors shall live.
    """
    try:
        path = _path(states, segments)
        tensors = open_weights(path.read_bytes(), stated_paths(path))
        return read_state(tensors, _names(segments), counts=[count], device=device)
    except (OSError, ValueError, KeyError):
        return None


def remove_state(states: Path, segments: Sequence[Segment]) -> None:
    """Remove what was stored of a stack."""
    _path(states, segments).unlink(missing_ok=True)


def remove_all_states(states: Path) -> None:
    """Remove what was stored of all stacks: also of those that were put together differently after an interruption."""
    for path in states.glob(f"*{_ENDING}"):
        path.unlink(missing_ok=True)


def _names(segments: Sequence[Segment]) -> list[list[str]]:
    return [[each.name for each in segments]]


def _path(states: Path, segments: Sequence[Segment]) -> Path:
    together = hashlib.sha256("/".join(each.name for each in segments).encode()).hexdigest()
    return states / f"{together[:16]}{_ENDING}"
