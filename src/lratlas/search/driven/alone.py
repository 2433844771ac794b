"""A script that is run by itself, in a process of its own: are its losses those of the training in the search?"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch.optim import Optimizer

from lratlas.errors import SearchError
from lratlas.search.driven.hooks import Follower, followed
from lratlas.search.driven.script import script_body
from lratlas.search.driven.steps import Steps
from lratlas.search.driven.world import ENVIRONMENT
from lratlas.streams import seeded

_SLACK, _PATIENCE = 60.0, 5  # seconds for a start, and times what it took in the search


def losses_alone(
    script: Path,
    words: Sequence[str],
    *,
    seed: int,
    lr: float | None,
    shares: Sequence[float],
    seconds: float,
    output: Path,
) -> list[float]:
    """The losses of the first steps of a script, run by a Python of its own.

    Args:
        script: The file.
        words: Its arguments.
        seed: Of the random generators, before its first line.
        lr: What its optimizers' LRs are scaled to; None to leave them.
        shares: What the LR of each step is multiplied by; after the last one the script is ended.
        seconds: How long the search took for them.
        output: The file for what it prints; next to it is one with the losses.

    Raises:
        SearchError: It fails, or takes too long.
    """
    found = output.with_suffix(".json")
    found.unlink(missing_ok=True)
    told = {"script": str(script), "words": [*words], "seed": seed, "lr": lr, "shares": [*shares], "found": str(found)}
    program, limit = "from lratlas.search.driven.alone import main; main()", _SLACK + _PATIENCE * seconds
    with output.open("wb") as file:
        try:
            subprocess.run(
                [sys.executable, "-c", program, json.dumps(told)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
                env={"PYTHONIOENCODING": "utf-8:backslashreplace"} | ENVIRONMENT | os.environ,
            )
        except subprocess.TimeoutExpired as error:
            raise SearchError(f"it took more than {limit:.0f} s") from error
    try:
        losses = json.loads(found.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SearchError(f"it ended before its step {len(shares):,}; what it printed is in {output}") from error
    found.unlink()
    return losses


def main() -> None:
    """Run a script up to a step, and write its losses; the process ends there."""
    told = json.loads(sys.argv[1])
    sys.path[:] = [each for each in sys.path if each]  # a script's own folder is in the place of the current one
    recorder = _Recorder(shares=told["shares"], lr=told["lr"], found=Path(told["found"]))
    with followed(lambda: recorder), seeded(told["seed"]):
        script_body(Path(told["script"]))(told["words"])


class _Recorder(Follower):
    """Records the loss of each step, and ends the process after the last one."""

    def __init__(self, *, shares: Sequence[float], lr: float | None, found: Path) -> None:
        self._shares, self._lr, self._found = shares, lr, found
        self._steps, self._losses, self._backwards = Steps(), list[float](), 0

    def before_backward(self) -> None:
        self._backwards += 1

    def after_backward(self, losses: Sequence[Tensor]) -> None:
        self._backwards -= 1
        if not self._backwards:
            self._steps.add(losses)

    def before_step(self, optimizer: Optimizer) -> None:
        self._steps.begin(optimizer, lr=self._lr, share=self._shares[len(self._losses)])

    def after_step(self, optimizer: Optimizer) -> None:
        if not self._steps.end(optimizer):
            return
        loss = self._steps.taken()
        self._losses.append(float("nan") if loss is None else float(loss))
        if len(self._losses) == len(self._shares):
            self._found.write_text(json.dumps(self._losses), encoding="utf-8")
            sys.stdout.flush()
            os._exit(0)  # whatever else the script would do

    def after_scaling(self) -> None:
        self._steps.taken()
