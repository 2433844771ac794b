"""Stacks as named tensors, one per run, and back: what checkpoint files hold."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lratlas.study.jobs import Grid
from lratlas.training.averaging import Tails
from lratlas.training.state import Stack


def name_tensors(runs: Grid, kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stacked tensors as one tensor per run, named ``run/kind/name``."""
    return {
        f"{run}/{kind}/{name}": value[seed, lane]
        for seed, row in enumerate(runs)
        for lane, run in enumerate(row)
        for name, value in tensors.items()
    }


def stack_of(
    files: Mapping[str, Mapping[str, Tensor]], runs: Grid, kind: str, device: torch.device
) -> dict[str, Tensor]:
    """The inverse of `name_tensors`, for the runs in the order given."""
    first = f"{runs[0][0]}/{kind}/"
    # Sorted, for a file gives its tensors in any order and sums over parameters must not depend on it.
    names = sorted(name.removeprefix(first) for name in files[runs[0][0]] if name.startswith(first))
    return {
        name: torch.stack([torch.stack([files[run][f"{run}/{kind}/{name}"] for run in row]) for row in runs]).to(device)
        for name in names
    }


def segment_tensors(runs: Grid, stack: Stack, tails: Tails, seconds: float) -> dict[str, Tensor]:
    """Everything that training needs to go on: the stack, the running sums of averages, and the seconds spent."""
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
    """The stack, running sums and seconds spent that `segment_tensors` put into a file.

    Args:
        tensors: The file.
        runs: The runs wanted, [seed][lane].
        counts: Counts of the weight averages under way.
        step: Steps done.
        device: Where the tensors shall live.
    """
    files = {run: tensors for row in runs for run in row}

    def part(kind: str) -> dict[str, Tensor]:
        return stack_of(files, runs, kind, device)

    shared = {
        key.removeprefix("stack/state/"): value.to(device)
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
