"""Files of the current folder that are called like libraries are never imported in their place."""

import os
import subprocess
import sys
from pathlib import Path

from hostile_folders import MARK, plant_modules

LIBRARIES = ("altair", "cloudpickle", "numpy", "polars", "psutil", "pydantic", "safetensors", "scipy", "torch")
SPEC = """
name = "tiny"
[task]
model = "test:model"
data = "test.sets:data"
batch_size = 4
[pretrain]
lrs = [0.1]
steps = 2
[training]
compile = false
strategy = "single"
"""
MODEL = """
from lratlas.models.mlp import MLP

def model():
    return MLP(4, (3,), 2, scale_invariant=True)
"""
DATA = """
import torch
import polars
import neighbour

x = torch.arange(32.0).reshape(8, 4).sin()

def data():
    return (x, torch.arange(8) % 2), (x, torch.arange(8) % 2)
"""


def run(*words: str | Path, folder: Path) -> str:
    """What a command prints to standard error, of which nothing may be wrong."""
    ended = subprocess.run(words, cwd=folder, env=os.environ, capture_output=True, encoding="utf-8", check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def test_a_study_runs_in_a_folder_of_hostile_modules_with_the_spec_s_own_module(tmp_path: Path):
    """The user's module is named like one of Python's, and is in the spec folder, with a module that it imports."""
    here, own = tmp_path / "here", tmp_path / "own"
    (own / "test").mkdir(parents=True)
    here.mkdir()
    for folder in (here, own):
        plant_modules(folder, *LIBRARIES)
    (own / "spec.toml").write_text(SPEC)
    (own / "test/__init__.py").write_text(MODEL)
    (own / "test/sets.py").write_text(DATA)
    (own / "neighbour.py").touch()
    words = ["explore", own / "spec.toml", "-f", "study", "--workers", "1"]
    said = run(sys.executable, "-m", "lratlas", *words, folder=here)
    assert said.count(f"lratlas: Imports test from {own / 'test/__init__.py'}.") == 1
    assert not run(Path(sys.executable).with_name("lratlas"), "report", "study", folder=here)
    assert not [*tmp_path.rglob(MARK)]
