"""Stacks that do not fit into memory: programs that refuse more than two lanes, and the results they still give."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lratlas.training.compiling import compile_function
from lratlas.training.evaluate import evaluate_stack, pool_buffers
from lratlas.training.memory import in_parts, is_out_of_memory
from lratlas.training.objective import LOSSES
from lratlas.training.program import Program, build
from lratlas.training.rules import adam
from lratlas.training.state import start_stack, width
from lratlas.training.trainer import Trained, train_stack
from training.helpers import Point, point_of, samples_of

LANES, STEPS = 5, 12
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(20, 4, generator=GENERATOR, dtype=torch.float64)
Y = torch.randint(3, (20,), generator=GENERATOR)
BATCHES = torch.randint(20, (STEPS, 1, 6), generator=GENERATOR)
LRS = torch.tensor([[1e-3, 3e-3, 1e-2, 3e-2, 0.1]], dtype=torch.float64)
Wrapped = Callable[..., Any]


def problem() -> tuple[Program, Point]:
    models = list[nn.Module]()
    for seed in range(LANES):
        torch.manual_seed(seed)
        models.append(
            nn.Sequential(nn.Linear(4, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).double()
        )
    return build(models[0], LOSSES["cross_entropy"], adam(), compiled=False), point_of(models)


def scarce(function: Wrapped, most: int, *, after: int = 0, error: type[RuntimeError] | None = None) -> Wrapped:
    """The function, which raises for more than ``most`` lanes once it was called ``after`` times."""
    calls = 0

    def limited(weights: dict[str, Tensor], *others: Any) -> Any:
        nonlocal calls
        calls += 1
        if width(weights) > most and calls > after:
            raise (error or torch.OutOfMemoryError)("too much")
        return function(weights, *others)

    return limited


def train(program: Program, point: Point, progress: Callable[[int], None] | None = None) -> Trained:
    samples = samples_of(X, Y, point)
    return train_stack(
        program,
        start_stack(point.weights, point.buffers, program.rule),
        lrs=LRS,
        batches=BATCHES,
        train=samples,
        test=samples,
        trace_every=5,
        snapshots=[4],
        progress=progress,
    )


# 5 lanes into 2 and 3, and 3 into 1 and 2: once for all steps, or for each of the last two evaluations.
@pytest.mark.parametrize(("part", "splits"), [("step", [(5,), (3,)]), ("evaluate", [(5,), (3,)] * 2)])
def test_training_a_stack_in_parts_gives_what_training_it_whole_gives(
    part: str, splits: list[tuple[int]], caplog: pytest.LogCaptureFixture
) -> None:
    program, point = problem()
    whole = train(program, point)
    # Memory suffices for the first call.
    limited = replace(program, **{part: scarce(getattr(program, part), 2, after=1)})
    told = list[int]()
    with caplog.at_level(logging.WARNING, logger="lratlas"):
        split = train(limited, point, told.append)
    assert sum(told) == STEPS * LANES
    assert [record.args for record in caplog.records] == splits
    assert all("ran out of memory: it is split in two" in record.message for record in caplog.records)
    pairs = [
        (split.stack.weights, whole.stack.weights),
        (split.stack.buffers, whole.stack.buffers),
        (split.stack.state, whole.stack.state),
        (split.snapshots[4], whole.snapshots[4]),
    ]
    for one, other in pairs:
        assert set(one) == set(other)
        for name, value in other.items():
            torch.testing.assert_close(one[name], value, rtol=0, atol=1e-12)
    assert torch.equal(split.stack.alive, whole.stack.alive)
    assert split.stack.step == whole.stack.step == STEPS
    assert [row.step for row in split.rows] == [row.step for row in whole.rows] == [5, 10, 12]
    for row, other in zip(split.rows, whole.rows, strict=True):
        for name in ("train_loss", "train_accuracy", "gradient_norm", "test_loss", "test_accuracy", "weight_norm"):
            torch.testing.assert_close(getattr(row, name), getattr(other, name), rtol=0, atol=1e-12)


def test_evaluating_and_pooling_in_parts_give_what_the_whole_gives(caplog: pytest.LogCaptureFixture) -> None:
    program, point = problem()
    limited = replace(program, evaluate=scarce(program.evaluate, 2), moments=scarce(program.moments, 2))
    samples = samples_of(X, Y, point)
    with caplog.at_level(logging.WARNING, logger="lratlas"):
        scores = evaluate_stack(limited, point.weights, point.buffers, samples)
        pooled = pool_buffers(limited, point.weights, point.buffers, samples, batch_size=7)
    assert len(caplog.records) == 4
    expected = evaluate_stack(program, point.weights, point.buffers, samples)
    for name in ("loss", "accuracy", "chance_accuracy"):
        torch.testing.assert_close(getattr(scores, name), getattr(expected, name), rtol=0, atol=1e-12)
    for name, value in pool_buffers(program, point.weights, point.buffers, samples, batch_size=7).items():
        torch.testing.assert_close(pooled[name], value, rtol=0, atol=1e-12)


def test_one_lane_that_does_not_fit_is_an_error() -> None:
    program, point = problem()
    told = list[int]()
    with pytest.raises(torch.OutOfMemoryError, match="too much"):
        train(replace(program, step=scarce(program.step, 0)), point, told.append)
    assert sum(told) == 0


def test_other_errors_are_passed_on_at_once(caplog: pytest.LogCaptureFixture) -> None:
    program, point = problem()
    with pytest.raises(RuntimeError, match="too much"):
        train(replace(program, step=scarce(program.step, 2, error=RuntimeError)), point)
    assert not caplog.records


@pytest.mark.parametrize(
    ("lanes", "most", "parts"),
    [(1, 1, [1]), (4, 4, [4]), (5, 2, [2, 1, 2]), (7, 3, [3, 2, 2]), (3, 1, [1, 1, 1])],
)
def test_the_parts_cover_all_lanes_in_order_and_are_no_smaller_than_they_must_be(
    lanes: int, most: int, parts: list[int]
) -> None:
    done = list[int]()

    def work(part: slice) -> list[int]:
        if part.stop - part.start > most:
            raise torch.OutOfMemoryError("too much")
        done.append(part.stop - part.start)
        return list(range(part.start, part.stop))

    def join(each: Sequence[list[int]]) -> list[int]:
        return [lane for part in each for lane in part]

    assert in_parts(work, lanes, join) == list(range(lanes))
    assert done == parts


def test_samples_are_evaluated_in_smaller_chunks_before_lanes_are_split(caplog: pytest.LogCaptureFixture) -> None:
    program, point = problem()
    samples, sizes = samples_of(X, Y, point), list[int]()

    def limited(weights: dict[str, Tensor], buffers: Any, batch: Any, counted: Tensor) -> Tensor:
        if len(counted) > 6:
            raise torch.OutOfMemoryError("too much")
        sizes.append(len(counted))
        return program.evaluate(weights, buffers, batch, counted)

    scores = evaluate_stack(replace(program, evaluate=limited), point.weights, point.buffers, samples)
    assert sizes == [5, 5, 5, 5]  # 20 samples are halved twice
    assert not caplog.records
    expected = evaluate_stack(program, point.weights, point.buffers, samples)
    torch.testing.assert_close(scores.loss, expected.loss, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "message",
    [
        "aoti_torch_empty_strided(2, int_array_0, int_array_1, cached_torch_dtype_float32, 1, 0, &buf0_handle) API call"
        " failed at /tmp/c.main.cpp, line 24",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "MPS backend out of memory (MPS allocated: 5 GB).",
    ],
)
def test_a_lack_of_memory_is_known_by_its_message(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))


def test_another_failed_call_of_compiled_code_is_no_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("aoti_torch_cpu_mm_out(buf0, a, b) API call failed at c.cpp, line 3"))


@pytest.mark.long
def test_what_compiled_code_says_when_a_cpus_memory_is_full_is_known() -> None:
    def outer(x: Tensor) -> Tensor:
        return (x[:, None] * x).cumsum(0)

    compiled = compile_function(outer, torch.device("cpu"))
    with pytest.raises(RuntimeError) as caught:
        compiled(torch.ones(4 * 10**5))  # its square has 600 GB
    assert is_out_of_memory(caught.value)


def test_what_pytorch_says_when_a_cpus_memory_is_full_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
