"""A small study with a user's own module, and what the tests of the command line check again and again."""

from dataclasses import dataclass
from pathlib import Path

from polars.testing import assert_frame_equal

from lratlas.atlas import load

MODULE = """
import os
import torch
from lratlas.models.mlp import MLP

def data():
    if "LRATLAS_TEST_NOISE" in os.environ:
        print("a message of the data's own")
    x = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] + x[:, 1] > 0).long()
    return (x[:64], y[:64]), (x[64:], y[64:])

def data_with_nan():
    (x, y), test = data()
    x[3, 2] = float("nan")
    return (x, y), test

def data_with_a_high_label():
    (x, y), test = data()
    y[0] = 7
    return (x, y), test

def data_with_a_negative_label():
    (x, y), test = data()
    y[0] = -1
    return (x, y), test

def data_that_fails():
    raise ValueError("no such disk\\nand a second line")

def data_that_is_not_a_pair():
    return 3

def model():
    return MLP(6, (8,), 2, scale_invariant=True)

def model_for_five_inputs():
    return MLP(5, (8,), 2, scale_invariant=True)

def model_with_biases():
    return MLP(6, (8,), 2, scale_invariant=False)

def model_that_fails(size=1):
    raise KeyError("width")
"""
SPEC = """
name = "tiny"
[task]
model = "cli_own:model"
data = "cli_own:data"
batch_size = 16
rule = { name = "sphere_sgd" }
[pretrain]
lrs = [1e-3, 1e-1]
steps = 100
[finetune]
lrs = [1e-4, 1e-3]
steps = 8
[average]
counts = [2]
[training]
compile = false
strategy = "stack"
"""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command left: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, kw_only=True)
class Explored:
    """The small study that the tests share, and what the command that made it printed."""

    folder: Path
    out: str
    terminal: str


NAMED = "lratlas: The spec imports and runs this code: cli_own:model, cli_own:data."
"""What is said before anything of the tests' spec is done."""


def sentence(ran: Ran) -> str:
    """The one sentence on standard error; fails if there is anything else, or another exit code than 2."""
    assert ran.code == 2, ran
    assert not ran.out
    # Where a spec names code, that is said before anything can go wrong with it.
    lines = ran.err.splitlines(keepends=True)
    (said,) = [line for line in lines if not line.startswith(("lratlas: The spec imports", "lratlas: Imports "))]
    assert said.startswith("lratlas: ")
    assert said.endswith(".\n")
    assert "Traceback" not in said
    return said.removeprefix("lratlas: ").strip()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a study."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_tables(study: Path, explored: Explored) -> None:
    found, wanted = load(study).tables, load(explored.folder).tables
    for name in wanted:
        drop = ["seconds"] if name == "runs" else []
        assert_frame_equal(found[name].drop(drop), wanted[name].drop(drop), check_exact=True)
