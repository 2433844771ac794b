"""Where a training job goes on after an interruption: its checkpoints, at ends of segments and where it was left."""

from dataclasses import dataclass, field, replace
from itertools import takewhile

import torch
from torch import Tensor

from lratlas.study.execute.checkpoints import named, read_segment, segment_tensors, stack_of
from lratlas.study.execute.study import Study
from lratlas.study.plan.plan import Training
from lratlas.training.averaging import Tails
from lratlas.training.record import UnderWay, packed, unpacked
from lratlas.training.stacks import Stack

_KIND = "under_way"
_NUMBERS, _GENERATOR = f"stack/{_KIND}", "stack/generator"


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where a training job stands.

    Attributes:
        stack: The stack.
        tails: Running sums of the checkpoints that are averaged.
        seconds: Time spent up to here.
        under_way: What is under way in the middle of a segment; None at its end.
        generator: State there of PyTorch's generator, which dropout and the like draw from.
        files: Checkpoints of the job that are there.
    """

    stack: Stack
    tails: Tails = field(default_factory=dict[int, dict[str, Tensor]])
    seconds: float = 0.0
    under_way: UnderWay | None = None
    generator: Tensor | None = None
    files: tuple[str, ...] = ()


def reached(study: Study, job: Training) -> Point | None:
    """The furthest point of a job that was kept, with all rows recorded before it; None if there is none.

    Raises:
        StudyError: It cannot be read.
    """
    store = study.store
    recorded = {*takewhile(lambda end: all(store.has_part(t, f"{job.id}-{end}") for t in job.recorded), job.segments)}
    ends = [end for end in sorted(recorded) if store.has_weights(f"{job.id}-{end}")]
    files = tuple(f"{job.id}-{end}" for end in ends)
    if store.has_weights(job.part_way):
        at, files = _read(study, job, job.part_way), (*files, job.part_way)
        step = at.stack.step
        if step > max(ends, default=job.start) and recorded.issuperset(end for end in job.segments if end <= step):
            return replace(at, files=files)
    return replace(_read(study, job, f"{job.id}-{ends[-1]}", end=ends[-1]), files=files) if ends else None


def _read(study: Study, job: Training, name: str, *, end: int | None = None) -> Point:
    """What a checkpoint holds: that of the end of a segment, or, without an end, of the middle of one."""
    tensors = study.store.read_weights(name)
    counts = job.average.counts if job.average else ()
    step = int(tensors[_NUMBERS][0]) if end is None else end
    stack, tails, seconds = read_segment(tensors, job.runs, counts=counts, step=step, device=study.device)
    if end is not None:
        return Point(stack=stack, tails=tails, seconds=seconds)
    files = {run: tensors for row in job.runs for run in row}
    under_way = unpacked(stack_of(files, job.runs, _KIND, study.device), tensors[_NUMBERS][1:])
    return Point(stack=stack, tails=tails, seconds=seconds, under_way=under_way, generator=tensors[_GENERATOR])


def keep(study: Study, job: Training, at: Point) -> Point:
    """Keep a job where it stands; at the end of a segment, earlier checkpoints of it are removed.

    Raises:
        StudyError: The file cannot be written.
    """
    tensors = segment_tensors(job.runs, at.stack, at.tails, at.seconds)
    if at.under_way is None or at.generator is None:
        name = f"{job.id}-{at.stack.step}"
        study.store.write_weights(name, tensors)
        return forget(study, at, but=name)
    values, numbers = packed(at.under_way)
    tensors |= named(job.runs, _KIND, values)
    tensors |= {_NUMBERS: torch.tensor([at.stack.step, *numbers]), _GENERATOR: at.generator}
    study.store.write_weights(job.part_way, tensors)
    return replace(at, files=(*at.files, job.part_way))


def forget(study: Study, at: Point, *, but: str | None = None) -> Point:
    """Remove the checkpoints of a job that have become useless.

    Raises:
        StudyError: One cannot be removed.
    """
    for name in at.files:
        if name != but:
            study.store.remove_weights(name)
    return replace(at, files=() if but is None else (but,))


def generator_state(device: torch.device) -> Tensor:
    """The state of PyTorch's generator for a device."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_generator_state(state: Tensor, device: torch.device) -> None:
    """The inverse of `generator_state`."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
