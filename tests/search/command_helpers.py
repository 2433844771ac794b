"""A small training program for the tests of commands, with a loss that is known in closed form."""

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PROGRAM = """
import math, os, sys, time

def tell(**record):
    # As json.dumps does; the module alone takes as long to import as Python to start.
    words = ", ".join(f'"{{name}}": {{value!r}}' for name, value in record.items())
    print("{{" + words.replace("nan", "NaN").replace("inf", "Infinity") + "}}")

lr, start, stop, final, checkpoint = (kind(word) for kind, word in zip((float, int, int, float, str), sys.argv[1:6]))
anneal_from = int(sys.argv[6]) if len(sys.argv) > 6 else start
if start == 0:
    assert not os.path.exists(checkpoint)
    weight = 1.0
else:
    with open(checkpoint) as file:
        step, trained_at, weight = map(float, file.read().split())
    assert step == start and trained_at == lr
{before}
# Gradient descent on the parabola weight^2 / 2 with noise that a constant LR never forgets.
for step in range(start, stop):
    now = lr if final == lr or step < anneal_from else lr * (stop - step) / (stop - anneal_from)
    weight -= now * (weight + 0.1 * math.cos(12.9898 * step))
    loss = weight * weight / 2
    {inside}
    tell(step=step + 1, loss=loss)
with open(checkpoint, "w") as file:
    print(stop, lr, weight, file=file)
{after}
"""
VALUE = "tell(value=loss, averaged=loss)"


def program(folder: Path, *, before: str = "", inside: str = "pass", after: str = VALUE) -> str:
    """Write the program with its own lines before, inside and after training; returns its command."""
    path = folder / "train it.py"
    path.write_text(PROGRAM.format(before=before, inside=inside, after=after))
    return f"{sys.executable} -S {shlex.quote(str(path))} {{lr}} {{start}} {{stop}} {{final_lr}} {{checkpoint}}"


def gone(pids: Sequence[int], *, within: float = 5.0) -> bool:
    """Whether the processes have ended (a zombie has) before a time has passed."""
    deadline = time.monotonic() + within
    while any(map(runs, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def runs(pid: int) -> bool:
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, encoding="utf-8", check=False
    ).stdout
    return bool(found.strip()) and not found.startswith("Z")
