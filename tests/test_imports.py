"""What takes long to import is imported where it is used, so that every process starts soon."""

import subprocess
import sys

import pytest

LIBRARIES = {"altair", "numpy", "pandas", "polars", "pydantic", "scipy", "sklearn", "torch", "typer", "vl_convert"}
TRAINING = """
import torch
import lratlas.api.explore, lratlas.execute.train_job, lratlas.execute.worker
from lratlas.stacks.tensors import initial_tensors, samples
from lratlas.training.batches import batch_indices
from lratlas.training.program import build
from lratlas.training.state import start_stack
from lratlas.training.trainer import train_stack

x, y = torch.randn(8, 2), torch.arange(8) % 2
task = lratlas.Task(model=lambda: torch.nn.Linear(2, 2), train=(x, y), test=(x, y), batch_size=4, rule="sgd")
task = task.prepared
weights, buffers, frozen = initial_tensors([task], [0], 1, dtype=torch.float32, device=torch.device("cpu"))
train = samples([task], "train", frozen, dtype=torch.float32, device=torch.device("cpu"))
stack = start_stack(weights, buffers, task.update)
batches = batch_indices(seed=0, start=0, stop=3, samples=8, batch_size=4)[:, None]
program = build(task.model(), task.objective, task.update, compiled=False)
assert train_stack(program, stack, lrs=torch.full((1, 1), 0.1), batches=batches, train=train).stack.step == 3
"""


def imported_by(code: str) -> set[str]:
    """The modules that are there after a program."""
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return set(ran.stdout.split())


@pytest.mark.parametrize("code", ["import lratlas", "import lratlas, lratlas.errors, lratlas.execute.worker"])
def test_the_package_brings_nothing_with_it(code: str) -> None:
    assert not LIBRARIES & imported_by(code)


def test_a_worker_that_compiles_nothing_imports_neither_the_compiler_nor_what_analyses() -> None:
    names = imported_by(TRAINING)
    assert {"torch", "polars"} <= names
    assert not {"torch._dynamo", "torch._inductor", "sympy", "altair", "scipy", "sklearn", "vl_convert"} & names


def test_what_shows_a_study_or_searches_with_a_command_imports_no_pytorch() -> None:
    names = imported_by(
        "import lratlas.api.report, lratlas.api.compare, lratlas.report.charts.catalog, lratlas.serve\n"
        "import lratlas.search.program.command, lratlas.search.program.process"
    )
    assert {"altair", "polars"} <= names
    assert not {"torch", "sklearn", "scipy.stats", "scipy.optimize"} & names
