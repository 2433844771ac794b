"""Files with the final states of trained segments and the states of stacks in progress."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lratlas.errors import SearchError
from lratlas.execute.checkpoints import TrainState, read_segment, read_state, segment_tensors, state_tensors
from lratlas.files import write_file
from lratlas.search.journal import stated_paths
from lratlas.search.segments import Segment
from lratlas.study.store import open_weights, seal_weights
from lratlas.training.state import Stack

_FINAL, _UNDER_WAY = ".safetensors", ".part"
_PARTS = 8


def stops(segments: Sequence[Segment], *, every: int) -> list[int]:
    """Return the steps at which a stack may be saved: seven, spread evenly over the rows of the trace.

    Args:
        segments: Segments that begin and end at the same steps.
        every: Steps between two rows of the trace.
    """
    first = segments[0]
    length = max(every, first.steps // _PARTS // every * every)
    return list(range((first.start + length) // every * every, first.stop, length))


def store_state(states: Path, segments: Sequence[Segment], at: TrainState) -> None:
    """Save the current state of a stack; replaces its earlier state."""
    _write(_path(states, segments), state_tensors(_names(segments), at))


def load_state(states: Path, segments: Sequence[Segment], *, count: int, device: torch.device) -> TrainState | None:
    """Load the saved state of a stack; None if there is none or it cannot be read.

    Args:
        states: The folder of states.
        segments: The segments of the stack, in the order in which they were saved.
        count: Number of averaged checkpoints.
        device: Device of the tensors.
    """
    try:
        tensors = _read(_path(states, segments))
        return read_state(tensors, _names(segments), counts=[count], device=device)
    except (OSError, ValueError, KeyError):
        return None


def store_final_states(states: Path, segments: Sequence[Segment], stack: Stack) -> None:
    """Save the final state of each segment of a stack; remove the state in progress."""
    tensors = segment_tensors(_names(segments), stack, {}, 0.0)
    for each in segments:
        # The segment's tensors, and those that the whole stack shares.
        own = {key: value for key, value in tensors.items() if key.startswith((f"{each.name}/", "stack/"))}
        _write(states / f"{each.name}{_FINAL}", own)
    _path(states, segments).unlink(missing_ok=True)


def load_final_states(states: Path, names: Sequence[str], *, step: int, device: torch.device) -> Stack:
    """Load the final states of segments that end at a step, as a stack of one seed.

    Raises:
        SearchError: A state is missing or damaged.
    """
    tensors = dict[str, Tensor]()
    for name in names:
        path = states / f"{name}{_FINAL}"
        try:
            tensors |= _read(path)
        except OSError as error:
            raise SearchError(f"{path}, the state to continue from, cannot be read: {error}.") from error
        except ValueError as error:
            raise SearchError(f"{path}, the state to continue from, {error}.") from error
    return read_segment(tensors, [[*names]], counts=(), step=step, device=device)[0]


def lost_states(states: Path, names: Iterable[str]) -> set[str]:
    """Names of the segments whose final states are missing or damaged."""
    lost = set[str]()
    for name in names:
        try:
            _read(states / f"{name}{_FINAL}")
        except (OSError, ValueError):
            lost.add(name)
    return lost


def forget_states(states: Path, names: Collection[str]) -> None:
    """Remove the final states of these segments."""
    for name in names:
        (states / f"{name}{_FINAL}").unlink(missing_ok=True)


def forget_all_states(states: Path) -> None:
    """Remove all states, including those of stacks that were grouped differently before an interruption."""
    for ending in (_FINAL, _UNDER_WAY):
        for path in states.glob(f"*{ending}"):
            path.unlink(missing_ok=True)


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    write_file(path, seal_weights(tensors, stated_paths(path)[0]))


def _read(path: Path) -> dict[str, Tensor]:
    return open_weights(path.read_bytes(), stated_paths(path))


def _names(segments: Sequence[Segment]) -> list[list[str]]:
    return [[each.name for each in segments]]


def _path(states: Path, segments: Sequence[Segment]) -> Path:
    together = hashlib.sha256("/".join(each.name for each in segments).encode()).hexdigest()
    return states / f"{together[:16]}{_UNDER_WAY}"
