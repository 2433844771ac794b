"""Run an unmodified script, in this process or alone in a separate one."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from torch import Tensor
from torch.optim import Optimizer

from lratlas.errors import SearchError, SpecError
from lratlas.files import open_unlinked
from lratlas.rng import seed_generators
from lratlas.search.driven.steps import Follower, Steps, follow_steps
from lratlas.search.driven.world import ENVIRONMENT
from lratlas.search.segments import Segment

_PLACEHOLDER = re.compile(r"\{(lr|seed|steps|epochs)\}")


def script_body(script: Path) -> Callable[[Sequence[str]], None]:
    """Return a function of the arguments that runs a script in this process, in the same way as Python does.

    Args:
        script: The file.

    Raises:
        SpecError: The file cannot be read, or is not valid Python.
    """
    whole = script.absolute()
    try:
        code = compile(script.read_bytes(), str(whole), "exec", dont_inherit=True)
    except OSError as error:
        raise SpecError(
            f"The script {script} cannot be read: {error.strerror}. Pass the path of a Python file."
        ) from error
    except (SyntaxError, ValueError) as error:
        raise SpecError(
            f"The script {script} is not valid Python: {error}. For other programs use lratlas find --command."
        ) from error

    def run(words: Sequence[str]) -> None:
        sys.argv = [str(script), *words]
        # As in Python, the script's folder replaces that of the running program.
        sys.path.insert(0, str(whole.resolve().parent))
        main = ModuleType("__main__")
        main.__file__ = str(whole)
        sys.modules["__main__"] = main
        exec(code, vars(main))

    return run


def fill_arguments(words: Sequence[str], segment: Segment, epochs: int) -> list[str]:
    """Replace the placeholders in the arguments."""
    values = {"lr": repr(segment.lr), "seed": segment.seed, "steps": segment.stop, "epochs": epochs}
    return [_PLACEHOLDER.sub(lambda found: str(values[found[1]]), word) for word in words]


def placeholders_in(words: Sequence[str]) -> set[str]:
    """Placeholders in the arguments."""
    return {found for word in words for found in _PLACEHOLDER.findall(word)}


_SLACK, _PATIENCE = 60.0, 5  # seconds for the start, and factor of the time in the search


def measure_losses_alone(
    script: Path,
    words: Sequence[str],
    *,
    seed: int,
    lr: float | None,
    shares: Sequence[float],
    seconds: float,
    output: Path,
) -> list[float]:
    """Measure the losses of the first steps of a script in a separate Python process.

    Args:
        script: The file.
        words: Arguments of the script.
        seed: Seed of the random generators, set before its first line.
        lr: LR that its optimizers' LRs are scaled to; None to leave them unchanged.
        shares: Factor of the LR in each step; the script is ended after the last one.
        seconds: Time that the search took for these steps.
        output: File for its output; a file with the losses is next to it.

    Raises:
        SearchError: The script fails, or takes too long.
    """
    found = output.with_suffix(".json")
    found.unlink(missing_ok=True)
    told = {"script": str(script), "words": [*words], "seed": seed, "lr": lr, "shares": [*shares], "found": str(found)}
    program, limit = "from lratlas.search.driven.script import main; main()", _SLACK + _PATIENCE * seconds
    with open_unlinked(output, "wb") as file:
        try:
            subprocess.run(
                [sys.executable, "-P", "-c", program, json.dumps(told)],
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
        raise SearchError(f"it ended before step {len(shares):,}; its output is in {output}") from error
    found.unlink()
    return losses


def main() -> None:
    """Run a script up to a step, and write its losses; the process then exits."""
    told = json.loads(sys.argv[1])
    recorder = _Recorder(shares=told["shares"], lr=told["lr"], found=Path(told["found"]))
    with follow_steps(lambda: recorder), seed_generators(told["seed"]):
        script_body(Path(told["script"]))(told["words"])


class _Recorder(Follower):
    """Records the loss of each step, and exits the process after the last one."""

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
        loss = self._steps.take_loss()
        self._losses.append(float("nan") if loss is None else float(loss))
        if len(self._losses) == len(self._shares):
            self._found.write_text(json.dumps(self._losses), encoding="utf-8")
            sys.stdout.flush()
            os._exit(0)  # without running the rest of the script

    def after_scaling(self) -> None:
        self._steps.take_loss()
