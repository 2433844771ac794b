"""`watch`: which regime a running training is in, from one line in its loop."""

from collections.abc import Callable

from torch import nn
from torch.optim import Optimizer

from lratlas.watching.following import Watch
from lratlas.watching.rules import Rules
from lratlas.watching.tracker import Look

__all__ = ["Watch", "watch"]


def watch(
    optimizer: Optimizer,
    *,
    model: nn.Module | None = None,
    average: bool = False,
    chance_loss: float | None = None,
    chance_accuracy: float | None = None,
    false_alarm: float = 0.05,
    on_change: Callable[[Look], object] | None = None,
) -> Watch:
    """Watch a training: which regime its present learning rate is in, as it goes.

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
    * ``diverging`` (regime 3): the loss is not finite, rests above chance level, or the accuracy is at chance.
    * ``undecided``: too early, too noisy, or in between.

    The tests and their error rates are those of `lratlas.watching.rules.Rules`. They begin anew where the
    learning rate of any parameter group has changed by more than a factor 1.25 since they began: the regime is that of
    the present one.

    Args:
        optimizer: Any PyTorch optimizer.
        model: Whose buffers to restore after `Watch.averaged`.
        average: Keep a running average of the weights, which takes as much memory as they do.
        chance_loss: Loss of the best constant prediction, such as ``ln 10`` for ten balanced classes. None: the loss at
            the start takes its place.
        chance_accuracy: Accuracy of that prediction, such as 0.1; needed to judge by accuracies.
        false_alarm: Highest probability that a loss that does not fall is ever called converging.
        on_change: Called with the look at which the regime changed.

    Raises:
        SpecError: If a number is out of range.
    """
    rules = Rules(chance_loss=chance_loss, chance_accuracy=chance_accuracy, false_alarm=false_alarm)
    return Watch(optimizer, rules=rules, model=model, average=average, on_change=on_change)
