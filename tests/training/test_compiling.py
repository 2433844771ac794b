"""A compiled function that fails, or computes something else, is replaced by the eager one, with one warning."""

# pyright: reportUnknownLambdaType=false

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from lratlas.training.compiling import Function, Guarded, compiler_options, differing

X = torch.linspace(-1, 1, 7)


def doubled(x: Tensor) -> Tensor:
    return 2 * x


def broken(_: Tensor) -> Tensor:
    raise NotImplementedError("no such kernel\nwith details")


def broken_after(calls: int) -> Function:
    """The eager function, which may be called that often."""
    left = iter(range(calls))

    def limited(x: Tensor) -> Tensor:
        next(left)
        return doubled(x)

    return limited


def listed(result: Any) -> list[Tensor]:
    return [result]


def test_a_function_that_cannot_be_compiled_runs_as_it_is_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    guarded = Guarded(broken, doubled, listed)
    with caplog.at_level(logging.WARNING, "lratlas"):
        assert torch.equal(guarded(X), doubled(X))
        assert torch.equal(guarded(X), doubled(X))
    (said,) = caplog.messages
    assert "NotImplementedError: no such kernel" in said
    assert "\n" not in said


def test_what_was_compiled_for_other_arguments_is_compiled_again_rather_than_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fast = torch.compile(doubled, backend="eager", dynamic=False)
    guarded = Guarded(fast, broken_after(2), listed)
    for size in (3, 4):
        guarded(X[:size])
    with torch.compiler.set_stance("default", skip_guard_eval_unsafe=True):
        assert torch.equal(guarded(X), doubled(X))
    assert not [record for record in caplog.records if record.name == "lratlas"]


def test_a_program_that_gives_other_numbers_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    guarded = Guarded(lambda x: 2.2 * x, doubled, listed)
    assert torch.equal(guarded(X), doubled(X))
    assert torch.equal(guarded(2 * X), doubled(2 * X))
    assert "gives different numbers" in caplog.text


def test_one_that_agrees_is_used_from_then_on() -> None:
    calls: list[str] = []

    def fast(x: Tensor) -> Tensor:
        calls.append("fast")
        return 2 * x * (1 + 1e-6)

    def slow(x: Tensor) -> Tensor:
        calls.append("slow")
        return 2 * x

    guarded = Guarded(fast, slow, listed)
    for _ in range(3):
        guarded(X)
    assert calls == ["slow", "fast", "fast", "fast"]


def test_a_later_failure_is_caught_too(caplog: pytest.LogCaptureFixture) -> None:
    def fast(x: Tensor) -> Tensor:
        if len(x) != len(X):
            raise RuntimeError("another size")
        return 2 * x

    guarded = Guarded(fast, doubled, listed)
    guarded(X)
    assert torch.equal(guarded(X[:3]), doubled(X[:3]))
    assert "another size" in caplog.text


def test_an_error_of_the_function_itself_is_passed_on() -> None:
    def wrong(_: Tensor) -> Tensor:
        raise ValueError("the user's own")

    with pytest.raises(ValueError, match="the user's own"):
        Guarded(broken, wrong, None)(X)


def test_a_lack_of_memory_is_passed_on_for_the_stack_to_be_split() -> None:
    def hungry(_: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(RuntimeError, match="allocate"):
        Guarded(hungry, doubled, None)(X)


def test_comparing_neither_draws_random_numbers_nor_changes_what_is_given() -> None:
    def noisy(x: Tensor) -> Tensor:
        return x.mul_(2) + torch.rand(len(x)) * 0

    torch.manual_seed(1)
    expected = torch.rand(14)[7:]
    torch.manual_seed(1)
    x = X.clone()
    assert torch.equal(Guarded(noisy, noisy, listed)(x), 2 * X)
    assert torch.equal(x, 2 * X)
    assert torch.equal(torch.rand(7), expected)


def test_rounding_is_no_difference_and_a_lost_number_is_one() -> None:
    values = torch.tensor([1.0, 1e-9, torch.inf, 3.0])
    assert not differing([values * (1 + 1e-5)], [values])
    assert differing([torch.tensor([1.0, 0.0, 0.0, torch.nan])], [values]) == "a number that is not finite"
    assert "instead of 3" in differing([torch.tensor([1.0, 0.0, 0.0, 3.2])], [values])


def test_only_on_a_cpu_does_compiled_code_have_a_wrapper_in_c_plus_plus() -> None:
    # On CUDA, the wrapper is built with the CUDA toolkit, which PyTorch's packages do not contain.
    assert compiler_options(torch.device("cpu"))["cpp_wrapper"]
    assert not compiler_options(torch.device("cuda"))
