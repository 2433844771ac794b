"""`watch`: detect the regime of a running training with one line in its loop."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer

from lratlas.errors import SpecError
from lratlas.monitor.follow import Watch
from lratlas.monitor.learning_rates import Schedule, check_schedule
from lratlas.monitor.rules import Rules
from lratlas.monitor.tracker import Look

_DEEPEST = 32  # wrappers around an optimizer


class OptimizerWrapper(Protocol):
    """An object that steps an inner optimizer, such as DeepSpeed's; Accelerate's is an `Optimizer` too."""

    @property
    def optimizer(self) -> Any:
        """The optimizer inside, or another wrapper."""
        ...


def watch(
    optimizer: Optimizer | OptimizerWrapper,
    *,
    model: nn.Module | None = None,
    average: bool = False,
    schedule: Schedule = False,
    loss_is_progress: bool = True,
    chance_loss: float | None = None,
    chance_accuracy: float | None = None,
    false_alarm: float = 0.05,
    on_change: Callable[[Look], object] | None = None,
) -> Watch:
    """Watch a running training: detect the regime of its current learning rate.

    Example:
        >>> watch = lratlas.watch(optimizer)  # doctest: +SKIP
        >>> for x, y in loader:  # doctest: +SKIP
        ...     loss = criterion(model(x), y)
        ...     loss.backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        ...     watch(loss)
        >>> print(watch.report())  # doctest: +SKIP

    * ``converging`` (regime 1): the loss falls, or is near zero.
    * ``equilibrium`` (regime 2): the loss is stationary above zero.
    * ``diverging`` (regime 3): the loss is not finite or stays above the loss of an untrained model or its level at
      the start, or the accuracy is at chance.
    * ``undecided``: too early, too noisy, in between, or the learning rate moves.

    `lratlas.monitor.rules.Rules` has the error rates of the tests. The tests restart when the learning rate of any
    parameter group jumps by more than a factor of 1.25. If it changes gradually by more than this factor within the
    tested stretch of losses, and the loss falls with it or is stationary, the regime is ``undecided``, unless the
    change is declared as a ``schedule``.

    Do not use the default if the loss does not measure progress, as in generative adversarial networks and
    reinforcement learning: pass ``loss_is_progress=False``.

    Args:
        optimizer: Any PyTorch optimizer, or a wrapper with one as its attribute ``optimizer``, such as Accelerate's.
        model: The model whose buffers `Watch.averaged` restores.
        average: Average the weights while training, which takes as much memory as the weights.
        schedule: The learning rate follows a schedule: True, ``"cosine"``, ``"linear"``, or a function from the step to
            the factor of the learning rate. The regime is then that of the training under its schedule, at the
            learning rates of the stretch that was tested. Jumps that a function explains do not start the tests again.
        loss_is_progress: Whether a lower loss is a better model. If not, the reports state the course of the loss only;
            no regime except ``diverging`` is reported, for losses that are not finite, and nothing is suggested.
        chance_loss: Loss of the best constant prediction, that of an untrained model, such as ``ln 10`` for ten
            balanced classes. If it is positive, zero is the floor of the loss. None: losses of any sign are judged by
            their spread and by their fall since the start.
        chance_accuracy: Accuracy of this prediction as a share from 0 to 1, such as 0.1; required to use accuracies.
        false_alarm: Highest probability that a loss that does not fall is ever called converging.
        on_change: Called with the look at which the regime changed.

    Raises:
        SpecError: If a setting is out of range or of the wrong type, or there is no PyTorch optimizer.
    """
    check_schedule(schedule)
    check_options(model=model, average=average, on_change=on_change)
    rules = Rules(
        chance_loss=chance_loss,
        chance_accuracy=chance_accuracy,
        false_alarm=false_alarm,
        loss_is_progress=loss_is_progress,
        scheduled=bool(schedule),
    )
    return Watch(
        unwrap_optimizer(optimizer), rules=rules, schedule=schedule, model=model, average=average, on_change=on_change
    )


def check_options(*, model: object, average: object, on_change: object) -> None:
    """Refuse options of the wrong type.

    Raises:
        SpecError: If an option has the wrong type.
    """
    if model is not None and not isinstance(model, nn.Module):
        raise SpecError(f"model is a {type(model).__name__}; it must be a PyTorch module")
    if not isinstance(average, bool):
        raise SpecError(f"average is {average!r}; it must be True or False")
    if on_change is not None and not callable(on_change):
        raise SpecError(f"on_change is {on_change!r}; it must be a function of one check (a Look)")


def unwrap_optimizer(optimizer: object) -> Optimizer:
    """The optimizer whose steps can be followed: the optimizer itself, or the one inside its wrappers.

    Raises:
        SpecError: If there is no optimizer inside, or the wrappers refer to each other.
    """
    inner, seen = optimizer, list[object]()
    while inner is not None and len(seen) < _DEEPEST and not any(inner is wrapper for wrapper in seen):
        if _takes_hooks(inner):
            assert isinstance(inner, Optimizer)
            return inner
        seen.append(inner)
        inner = _inside(inner)
    why = "" if inner is None else ". Its attribute `optimizer` leads back to a wrapper and never to an optimizer"
    raise SpecError(
        f"the optimizer is a {type(optimizer).__name__}; it must be a PyTorch optimizer, or have one as its"
        f" attribute `optimizer`{why}"
    )


def _inside(wrapper: object) -> object:
    """The attribute ``optimizer`` of a wrapper; None if it has none."""
    try:
        return getattr(wrapper, "optimizer", None)
    except RecursionError:
        return None


def _takes_hooks(optimizer: object) -> bool:
    """Whether hooks can be registered: a wrapper may inherit from `Optimizer` without calling its constructor."""
    if not isinstance(optimizer, Optimizer):
        return False
    try:
        optimizer.register_step_post_hook(_nothing).remove()
    except (AttributeError, RecursionError):
        return False
    return True


def _nothing(*_: object) -> None:
    """A hook that does nothing."""
