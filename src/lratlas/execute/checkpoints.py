"""The content of checkpoint files: convert stacks to named tensors, one per run, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lratlas.devices import moved
from lratlas.study.jobs import Grid
from lratlas.training.averaging import Tails
from lratlas.training.record import SegmentState, pack, unpack
from lratlas.training.state import Stack

_KIND = "under_way"
_NUMBERS, _STEP, _LOSSES = f"stack/{_KIND}", "stack/step", "stack/losses"
_GENERATORS, _GENERATOR = "stack/generators/", "stack/generator"  # the latter in files of earlier versions


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """The training state of a stack, in a study or a search.

    Attributes:
        stack: The stack.
        tails: Running sums of the checkpoints that are averaged.
        seconds: Training time so far.
        losses: In a search, the mean training losses so far, each [lanes].
        segment: The partial results in the middle of a study's segment; None at its end.
        generators: States of the generators in the middle of a segment, which layers like dropout draw from.
    """

    stack: Stack
    tails: Tails = field(default_factory=dict[int, dict[str, Tensor]])
    seconds: float = 0.0
    losses: tuple[Tensor, ...] = ()
    segment: SegmentState | None = None
    generators: Mapping[str, Tensor] | None = None


def state_tensors(runs: Grid, at: TrainState) -> dict[str, Tensor]:
    """Everything needed to resume training from a state, as named tensors."""
    tensors = segment_tensors(runs, at.stack, at.tails, at.seconds)
    if at.losses:
        tensors |= {_STEP: torch.tensor(at.stack.step), _LOSSES: torch.stack(at.losses)}
    if at.segment is not None:
        values, numbers = pack(at.segment)
        tensors |= name_tensors(runs, _KIND, values)
        tensors |= {f"{_GENERATORS}{name}": state for name, state in (at.generators or {}).items()}
        tensors |= {_NUMBERS: torch.tensor([at.stack.step, *numbers])}
    return tensors


def read_state(
    tensors: Mapping[str, Tensor], runs: Grid, *, counts: Sequence[int], device: torch.device, step: int | None = None
) -> TrainState:
    """Read a state from the tensors of `state_tensors`.

    Args:
        tensors: The tensors of the file.
        runs: The runs to read, [seed][lane].
        counts: Counts of the current weight averages.
        device: The device to put the tensors on.
        step: Number of completed steps, at the end of a study's segment; otherwise the file contains it.
    """
    if step is not None:
        stack, tails, seconds = read_segment(tensors, runs, counts=counts, step=step, device=device)
        return TrainState(stack=stack, tails=tails, seconds=seconds)
    numbers = tensors.get(_NUMBERS)
    done = int(tensors[_STEP] if numbers is None else numbers[0])
    stack, tails, seconds = read_segment(tensors, runs, counts=counts, step=done, device=device)
    if numbers is None:
        return TrainState(stack=stack, tails=tails, seconds=seconds, losses=tuple(moved(tensors[_LOSSES], device)))
    files = {run: tensors for row in runs for run in row}
    segment = unpack(stack_of(files, runs, _KIND, device), numbers[1:])
    generators = {
        name.removeprefix(_GENERATORS): state for name, state in tensors.items() if name.startswith(_GENERATORS)
    }
    if (older := tensors.get(_GENERATOR)) is not None:  # of the device; a state of CUDA's generator is shorter
        generators["cpu" if older.shape == torch.get_rng_state().shape else "cuda/0"] = older
    return TrainState(stack=stack, tails=tails, seconds=seconds, segment=segment, generators=generators)


def name_tensors(runs: Grid, kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split stacked tensors into one tensor per run, named ``run/kind/name``."""
    return {
        f"{run}/{kind}/{name}": value[seed, lane]
        for seed, row in enumerate(runs)
        for lane, run in enumerate(row)
        for name, value in tensors.items()
    }


def stack_of(
    files: Mapping[str, Mapping[str, Tensor]], runs: Grid, kind: str, device: torch.device
) -> dict[str, Tensor]:
    """The inverse of `name_tensors`, for the runs in the given order."""
    first = f"{runs[0][0]}/{kind}/"
    # Sorted, since files return tensors in any order and sums over parameters must not depend on it.
    names = sorted(name.removeprefix(first) for name in files[runs[0][0]] if name.startswith(first))
    return {
        name: moved(
            torch.stack([torch.stack([files[run][f"{run}/{kind}/{name}"] for run in row]) for row in runs]), device
        )
        for name in names
    }


def segment_tensors(runs: Grid, stack: Stack, tails: Tails, seconds: float) -> dict[str, Tensor]:
    """Everything needed to resume training: the stack, the running sums of averages, and the training time."""
    shared = {name: value for name, value in stack.state.items() if value.dim() < 2}
    own = {name: value for name, value in stack.state.items() if value.dim() >= 2}
    tensors = name_tensors(runs, "weights", stack.weights) | name_tensors(runs, "buffers", stack.buffers)
    tensors |= name_tensors(runs, "state", own) | name_tensors(runs, "alive", {"alive": stack.alive})
    for count, tail in tails.items():
        tensors |= name_tensors(runs, f"tail{count}", tail)
    tensors |= {f"stack/state/{name}": value for name, value in shared.items()}
    return tensors | {"stack/seconds": torch.tensor(seconds, dtype=torch.float64)}


def read_segment(
    tensors: Mapping[str, Tensor], runs: Grid, *, counts: Sequence[int], step: int, device: torch.device
) -> tuple[Stack, Tails, float]:
    """Read the stack, running sums and training time from the tensors of `segment_tensors`.

    Args:
        tensors: The tensors of the file.
        runs: The runs to read, [seed][lane].
        counts: Counts of the current weight averages.
        step: Number of completed steps.
        device: The device to put the tensors on.
    """
    files = {run: tensors for row in runs for run in row}

    def part(kind: str) -> dict[str, Tensor]:
        return stack_of(files, runs, kind, device)

    shared = {
        key.removeprefix("stack/state/"): moved(value, device)
        for key, value in tensors.items()
        if key.startswith("stack/state/")
    }
    tails = {count: tail for count in counts if (tail := part(f"tail{count}"))}
    stack = Stack(
        weights=part("weights"),
        buffers=part("buffers"),
        state=dict(sorted((part("state") | shared).items())),
        alive=part("alive")["alive"],
        step=step,
    )
    return stack, tails, float(tensors["stack/seconds"])
