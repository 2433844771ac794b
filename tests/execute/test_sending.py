"""Code from a script, a prompt, a closure or a module that only this process knows reaches a worker and runs there."""

import importlib.util
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lratlas.errors import TaskError
from lratlas.execute.sending import pack_tasks

pytestmark = pytest.mark.xdist_group("sending")  # what is sent is made once

Load = Callable[..., ModuleType]
SCRIPT = """
import functools
import sys
import torch.nn.functional as F
from torch import nn, ones
from lratlas.execute.sending import pack_tasks

SCALE = 3.0


@functools.lru_cache(maxsize=3)
def scale(factor):
    return factor * SCALE


def helper(x):
    return scale(1) * F.relu(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x):
        return helper(x)


def made(power):
    return lambda x: Net()(x) ** power


if __name__ == "__main__":
    print(pack_tasks([Net, helper, made(2)]))
"""
# What a worker does with it: eager, and under the compiler, which looks for globals in the module of a function.
WORKER = """
import sys, torch
from lratlas.execute.sending import unpack_tasks

x = torch.tensor([-1.0, 2.0])
for line in sys.stdin:
    net, helper, squared = unpack_tasks(line)
    compiled = torch.compile(net(), backend="eager", fullgraph=True)
    import __main__
    print([__main__.SCALE, *(made(x).tolist() for made in (net(), helper, squared, compiled))])
"""


def ran(*command: str, given: str = "", folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *command], input=given, capture_output=True, encoding="utf-8", cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """What a script sends, and what a prompt does, whose scale is another."""
    folder = tmp_path_factory.mktemp("sent")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    prompt = SCRIPT.replace("SCALE = 3.0", "SCALE = 2.0")
    return ran("script.py", folder=folder), ran("-", given=prompt, folder=folder)


def test_what_a_script_or_a_prompt_defines_finds_its_globals_in_a_worker(sent: tuple[str, str], tmp_path: Path) -> None:
    script, prompt = ran("-c", WORKER, given="".join(sent), folder=tmp_path).splitlines()
    assert script == "[3.0, [0.0, 6.0], [0.0, 6.0], [0.0, 36.0], [0.0, 6.0]]"
    assert prompt == "[2.0, [0.0, 4.0], [0.0, 4.0], [0.0, 16.0], [0.0, 4.0]]"


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Load]:
    """Load modules from a path that nobody else would find."""
    before = {*sys.modules}

    def load(name: str, source: str, *, package: bool = False) -> ModuleType:
        place = tmp_path.joinpath(*name.split("."))
        path = place / "__init__.py" if package else place.with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    yield load
    for name in {*sys.modules} - before:
        del sys.modules[name]


USE = "import sys; from lratlas.execute.sending import unpack_tasks as u; print(u(sys.stdin.read())(4))"


def used(function: Any, folder: Path) -> str:
    """What another process gets from the function of 4."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    return ran("-c", USE, given=pack_tasks(function), folder=elsewhere).strip()


def test_a_module_that_a_worker_cannot_import_is_sent_along(loaded: Load, tmp_path: Path) -> None:
    module = loaded("hidden_one", "def doubled(x):\n    return [2 * x, offset]\n\noffset = 5\n")
    assert used(module.doubled, tmp_path) == "[8, 5]"


def test_a_module_may_hold_what_cannot_be_pickled(loaded: Load, tmp_path: Path) -> None:
    locked = "import threading\n\nLOCK = threading.Lock()\n\ndef doubled(x):\n    with LOCK:\n        return 2 * x\n"
    assert used(loaded("hidden_lock", locked).doubled, tmp_path) == "8"


def test_modules_of_a_package_find_each_other(loaded: Load, tmp_path: Path) -> None:
    loaded("hidden_package", "BASE = 100\n", package=True)
    loaded("hidden_package.first", "from . import BASE\n\ndef tripled(x):\n    return BASE + 3 * x\n")
    second = loaded("hidden_package.second", "from .first import tripled\n\ndef six(x):\n    return tripled(2 * x)\n")
    assert used(second.six, tmp_path) == "124"


def test_a_module_without_a_file_is_sent_by_value(loaded: Load, tmp_path: Path) -> None:
    module = loaded("hidden_cell", "def doubled(x):\n    return [2 * x, offset]\n\noffset = 5\n")
    del module.__file__
    assert used(module.doubled, tmp_path) == "[8, 5]"


def test_a_module_hidden_by_another_of_its_name_is_sent(loaded: Load, tmp_path: Path) -> None:
    module = loaded("colorsys", "def doubled(x):\n    return 2 * x\n")
    assert used(module.doubled, tmp_path) == "8"


def test_what_a_module_imports_from_nowhere_is_named(loaded: Load, tmp_path: Path) -> None:
    loaded("hidden_tests", "", package=True)
    helpers = ModuleType("hidden_tests.helpers")
    exec("def tripled(x):\n    return 3 * x\n", vars(helpers))
    sys.modules[helpers.__name__] = helpers
    test = loaded(
        "hidden_tests.test_it",
        "from .helpers import tripled\n\nclass Net:\n    def __init__(self, x):\n        self.x = tripled(x)\n",
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", USE],
        input=pack_tasks(test.Net),
        capture_output=True,
        encoding="utf-8",
        cwd=elsewhere,
        check=False,
    )
    said = done.stderr.strip().splitlines()[-1]
    assert "TaskError: The task cannot be created in a worker process: ModuleNotFoundError: No module named" in said
    assert "hidden_tests.test_it" in said
    assert "set PYTHONPATH" in said


class Editable(MetaPathFinder):
    """What setuptools installs for packages that are edited: a finder that knows where their files are."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        del path, target
        return importlib.util.spec_from_file_location(fullname, self.path) if fullname == "hidden_edit" else None


def test_modules_that_other_finders_find_are_imported(
    loaded: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = loaded("hidden_edit", "def doubled(x):\n    return 2 * x\n")
    assert "return 2 * x" in pack_tasks(module.doubled)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Editable(tmp_path / "hidden_edit.py")])
    assert "return 2 * x" not in pack_tasks(module.doubled)


def test_two_tasks_reach_the_same_process_one_after_the_other(
    loaded: Load, sent: tuple[str, str], tmp_path: Path
) -> None:
    texts: list[str] = []
    for factor, text in zip((2, 3), sent, strict=True):
        texts.append(pack_tasks(loaded("hidden_again", f"def times(x):\n    return {factor} * x\n").times))
        texts.append(text.strip())
    code = """
import sys, torch
from lratlas.execute.sending import unpack_tasks

found = [unpack_tasks(line) for line in sys.stdin.read().splitlines()]
x = torch.ones(1)
print(found[0](4), found[2](4), [float(made[1](x)) for made in found[1::2]], float(found[1][0]()(x)))
"""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert ran("-c", code, given="\n".join(texts), folder=elsewhere).strip() == "8 12 [3.0, 2.0] 3.0"


def test_what_cannot_be_sent_is_said_in_one_sentence() -> None:
    lock = threading.Lock()
    with pytest.raises(TaskError, match=r"cannot be sent to worker processes: .*lock.*create these inside"):
        pack_tasks(lock.locked)
