"""Code from a script, a prompt, a closure or a module that only this process knows reaches a worker and runs there."""

import importlib.util
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from lratlas.errors import TaskError
from lratlas.study.execute.sending import packed_tasks

SCRIPT = """
import sys
import torch.nn.functional as F
from torch import nn, ones
from lratlas.study.execute.sending import packed_tasks

SCALE = 3.0


def helper(x):
    return SCALE * F.relu(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x):
        return helper(x)


def made(power):
    return lambda x: Net()(x) ** power


if __name__ == "__main__":
    print(packed_tasks([Net, helper, made(2)]))
"""
# What a worker does with it: eager, and under the compiler, which looks for globals in the module of a function.
WORKER = """
import sys, torch
from lratlas.study.execute.sending import unpacked_tasks

net, helper, squared = unpacked_tasks(sys.stdin.read())
x = torch.tensor([-1.0, 2.0])
compiled = torch.compile(net(), backend="eager", fullgraph=True)
print([net()(x).tolist(), helper(x).tolist(), squared(x).tolist(), compiled(x).tolist()])
import __main__
assert __main__.SCALE == 3.0
"""


def ran(*command: str, given: str = "", folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *command], input=given, capture_output=True, encoding="utf-8", cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("home", ["script", "prompt"])
def test_what_a_script_defines_finds_its_globals_in_a_worker(home: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    sent = ran("script.py", folder=tmp_path) if home == "script" else ran("-", given=SCRIPT, folder=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    found = ran("-c", WORKER, given=sent.strip(), folder=elsewhere)
    assert found.strip() == "[[0.0, 6.0], [0.0, 6.0], [0.0, 36.0], [0.0, 6.0]]"


@pytest.fixture
def hidden(tmp_path: Path) -> ModuleType:
    """A module loaded from a path that nobody else would find."""
    path = tmp_path / "hidden_module.py"
    path.write_text("def doubled(x):\n    return [2 * x, offset]\n\noffset = 5\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("hidden_module", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["hidden_module"] = module
    spec.loader.exec_module(module)
    return module


def test_a_module_that_a_worker_cannot_import_is_sent_along(hidden: ModuleType, tmp_path: Path) -> None:
    code = "import sys; from lratlas.study.execute.sending import unpacked_tasks as u; print(u(sys.stdin.read())(4))"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert ran("-c", code, given=packed_tasks(hidden.doubled), folder=elsewhere).strip() == "[8, 5]"
    del sys.modules["hidden_module"]


def test_what_cannot_be_sent_is_said_in_one_sentence() -> None:
    lock = threading.Lock()
    with pytest.raises(TaskError, match=r"cannot be sent to worker processes: .*lock.*make these inside"):
        packed_tasks(lock.locked)
