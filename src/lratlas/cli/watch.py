"""The command `lratlas watch`: run an unchanged training script, and report the regime of its training."""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from weakref import WeakSet

import typer

from lratlas.cli.options import SCHEDULES, choose
from lratlas.cli.terminal import say
from lratlas.notices import show_notice as notice

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from lratlas.monitor.follow import Watch
    from lratlas.monitor.tracker import Look


def watch(
    script: Annotated[Path, typer.Argument(help="A Python training script, run unchanged.", metavar="SCRIPT.py")],
    words: Annotated[
        list[str] | None, typer.Argument(help="After --, the arguments of the script.", metavar="-- ARGUMENTS")
    ] = None,
    schedule: Annotated[
        str, typer.Option(help="The LR's schedule in the script: constant, linear or cosine.", metavar="NAME")
    ] = "constant",
    chance_loss: Annotated[
        float | None, typer.Option(help="The loss of the best constant prediction.", metavar="X")
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(help="Write the result of each check to this file, as JSON lines.", metavar="FILE"),
    ] = None,
) -> None:
    """Run a training script and report the regime of its learning rate."""
    choose("--schedule", schedule, SCHEDULES)
    from lratlas.search.driven.script import script_body
    from lratlas.search.driven.steps import follow_steps

    run = script_body(script)
    rules: dict[str, Any] = {"schedule": False if schedule == "constant" else schedule, "chance_loss": chance_loss}
    watched = WatchedTraining(rules)
    try:
        with follow_steps(lambda: watched):
            run(words or [])
    except Exception as error:  # an error of the script, printed like Python does
        traceback.print_exception(error)
        raise typer.Exit(1) from error
    finally:  # also if the script fails or is interrupted
        sys.stdout.flush()
        watched.close()
        if log:
            for number, each in enumerate(watched.watches, 1):
                each.write_log(log if number == 1 else log.with_stem(f"{log.stem}-{number}"))
        for said in watched.report().split("\n"):
            say(said)


class WatchedTraining:
    """Follows the training in this process with a watch on its optimizer.

    Args:
        rules: Arguments of `lratlas.watch`.

    Attributes:
        watches: The watches of the optimizer that steps most, and of its replacements, in order.
    """

    def __init__(self, rules: dict[str, Any]) -> None:
        from lratlas.search.driven.steps import Steps

        self.watches: list[Watch] = []
        self._rules, self._steps = rules, Steps()
        self._optimizer: Optimizer | None = None
        self._seen: WeakSet[Optimizer] = WeakSet()

    def report(self) -> str:
        """The report of the watch, or a sentence that there was none."""
        if not self.watches:
            return "No PyTorch optimizer took a step."
        lines = [each.report() for each in self.watches]
        return lines[0] if len(lines) == 1 else "\n".join(f"optimizer {at}: {line}" for at, line in enumerate(lines, 1))

    def close(self) -> None:
        """Stop watching."""
        if self.watches:
            self.watches[-1].close()

    def before_backward(self) -> None:
        """Do nothing."""

    def after_backward(self, losses: "Sequence[Tensor]") -> None:
        """Remember the losses of the next step."""
        self._steps.add(losses)

    def before_step(self, optimizer: "Optimizer") -> None:
        """Watch the first optimizer from its first step on, and any replacement."""
        from lratlas.search.driven.steps import parameters_of

        if self._optimizer is None or (
            optimizer not in self._seen and parameters_of(optimizer) == parameters_of(self._optimizer)
        ):
            self._begin(optimizer)
        self._seen.add(optimizer)
        self._steps.begin(optimizer, lr=None, share=1.0)

    def after_step(self, optimizer: "Optimizer") -> None:
        """Pass the loss of the step to the watch."""
        if not self._steps.end(optimizer):
            return
        if optimizer is not self._optimizer:
            self._begin(optimizer)
        loss = self._steps.take_loss()
        if loss is not None:
            self.watches[-1](loss)

    def after_scaling(self) -> None:
        """Discard losses that led to no step."""
        self._steps.take_loss()

    def _begin(self, optimizer: "Optimizer") -> None:
        from lratlas.monitor.watch import watch as watched

        self.close()
        self._optimizer = optimizer
        self.watches.append(watched(optimizer, on_change=_print_change, **self._rules))


def _print_change(look: "Look") -> None:
    notice(f"Step {look.step:,}: {look.regime} at LR {look.lr:.3g}.")
