"""What a worker tells its driver."""

from types import SimpleNamespace

import pytest
import torch

from lratlas.errors import StudyError, TaskError
from lratlas.execute.messages import Message, Worked, failure


def test_work_is_reported_at_once_then_now_and_then_and_all_of_it_in_the_end(monkeypatch: pytest.MonkeyPatch):
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr("lratlas.execute.messages.time", SimpleNamespace(monotonic=lambda: clock.now))
    said = list[Message]()
    worked = Worked(said.append)
    for steps in range(1, 101):
        worked(steps)
        clock.now += 0.05
    worked.rest()
    told = [message["work"] for message in said]
    assert told[0] == 1
    assert sum(told) == 5050
    assert len(told) <= 7  # five seconds: the first, at most one a second, and the rest


def test_nothing_is_reported_of_a_job_without_steps():
    said = list[Message]()
    Worked(said.append).rest()
    assert not said


class EndpointConnectionError(ValueError):
    """An error of an object store's client: a class in its own module, whatever its base."""


@pytest.mark.parametrize("kind", [TypeError, ValueError, KeyError, ZeroDivisionError, ImportError, RuntimeError])
def test_an_error_that_the_same_code_raises_again_is_not_tried_again(kind: type[Exception]):
    assert told(kind("wrong")) == {"again": False, "final": False}
    assert told(kind("wrong"), ends=True) == {"again": True, "final": False}


@pytest.mark.parametrize(
    "error",
    [
        OSError("no room"),
        TimeoutError("too slow"),
        ConnectionResetError("gone"),
        MemoryError(),
        EOFError("cut off"),
        torch.OutOfMemoryError("no memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        EndpointConnectionError("no endpoint"),
        type("ClientError", (Exception,), {"__module__": "botocore.exceptions"})("throttled"),
        StudyError("a file is damaged"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_other_error_is_tried_again(error: Exception):
    assert told(error) == {"again": True, "final": False}


def test_errors_of_torch_are_not_tried_again_and_a_wrong_task_ends_the_study():
    with pytest.raises(RuntimeError) as singular:
        torch.linalg.inv(torch.zeros(2, 2))
    assert singular.type.__module__ == "torch._C"
    assert told(singular.value) == {"again": False, "final": False}
    assert told(TaskError("the loss does not fit")) == {"again": False, "final": True}


def told(error: Exception, *, ends: bool = False) -> dict[str, bool]:
    """What the driver hears of an error."""
    message = failure(error, ends=ends)
    return {name: message[name] for name in ("again", "final")}
