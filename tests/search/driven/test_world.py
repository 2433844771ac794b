"""What is global in a process belongs to one training while that runs, and is afterwards as it was."""

import gc
import logging
import os
import random
import subprocess
import sys
import textwrap
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import GradientState, is_initialized
from torch import distributed

from cheaper import without_a_process
from lratlas.errors import SearchError
from lratlas.search.driven.find import find_by_script
from lratlas.search.driven.world import enter, several_trainings, world
from lratlas.search.finder import Finder


def change(name: str) -> None:
    own: Any = torch.backends
    changes: dict[str, Any] = {
        "argv": lambda: sys.argv.append("--more"),
        "path": lambda: sys.path.insert(0, "/nowhere"),
        "folder": lambda: os.chdir("/"),
        "environment": lambda: os.environ.update(LRATLAS_CHANGED="1"),
        "dtype": lambda: torch.set_default_dtype(torch.float64),
        "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
        "deterministic": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
        "anomaly": lambda: torch.autograd.set_detect_anomaly(True, check_nan=False),
        "precision": lambda: torch.set_float32_matmul_precision("high"),
        "newer precision": lambda: setattr(own.cuda.matmul, "fp32_precision", "tf32"),
        "benchmark": lambda: setattr(own.cudnn, "benchmark", not own.cudnn.benchmark),
        "handlers": lambda: logging.root.addHandler(logging.NullHandler()),
        "level": lambda: logging.getLogger("a.script").setLevel(logging.DEBUG),
        "filters": lambda: warnings.simplefilter("ignore"),
        "collecting": gc.disable,
        "accelerate": lambda: GradientState()._set_sync_gradients(False),  # pyright: ignore[reportPrivateUsage]
        "torch": lambda: torch.rand(1),
        "numpy": lambda: np.random.seed(3),  # noqa: NPY002
        "python": random.random,
    }
    changes[name]()


def seen() -> dict[str, Any]:
    own: Any = torch.backends
    logger = logging.getLogger("a.script")
    return {
        "argv": list(sys.argv),
        "path": list(sys.path),
        "folder": os.getcwd(),  # noqa: PTH109
        "environment": dict(os.environ),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.get_deterministic_debug_mode()),
        "anomaly": torch.is_anomaly_enabled(),
        "precision": own.mkldnn.matmul.fp32_precision,
        "newer precision": own.cuda.matmul.fp32_precision,
        "benchmark": own.cudnn.benchmark,
        "handlers": list(logging.root.handlers),
        "level": logger.level,
        "filters": list(warnings.filters),
        "collecting": gc.isenabled(),
        "accelerate": GradientState().sync_gradients,
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
    }


@pytest.mark.parametrize("name", list(seen()))
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_each_change_is_undone_and_done_again(name: str):
    torch.set_float32_matmul_precision("highest")  # so that all settings of precision are set
    logging.getLogger("a.script").setLevel(logging.NOTSET)
    ours, before = world(), seen()
    try:
        change(name)
        theirs, changed = world(), seen()
        assert changed[name] != before[name]
        enter(ours)
        assert seen() == before
        enter(theirs)
        assert seen() == changed
    finally:
        enter(ours)


def test_a_folder_that_was_deleted_is_no_error(tmp_path: Path):
    ours = world()
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    theirs = world()
    gone.rmdir()
    lost = world()
    enter(ours)
    enter(theirs)
    enter(lost)
    enter(ours)
    assert world().folder == ours.folder


def test_a_new_training_has_no_state_of_accelerate_that_another_has():
    ours = world()
    try:
        fresh = replace(ours, shared={})  # as before the package was imported
        enter(fresh)
        Accelerator(cpu=True)
        theirs = world()
        enter(fresh)
        assert not is_initialized()
        enter(theirs)
        assert is_initialized()
    finally:
        enter(ours)


def test_of_singletons_by_class_a_training_has_its_own_jobs_alone(monkeypatch: pytest.MonkeyPatch):
    jobs: Any = type("GlobalHydra", (), {})
    sources: Any = type("SourcesRegistry", (), {})
    instances: dict[Any, object] = {sources: "imported"}
    module: Any = ModuleType("hydra.core.singleton")
    module.Singleton = type("Singleton", (), {"_instances": instances})
    before = world()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    instances[jobs] = "a job"
    theirs = world()
    enter(before)
    assert instances == {sources: "imported"}
    enter(theirs)
    assert instances == {sources: "imported", jobs: "a job"}


def test_a_process_group_is_made_once_and_ends_with_the_search(tmp_path: Path):
    make, destroy = distributed.init_process_group, distributed.destroy_process_group
    with several_trainings():
        for _ in range(2):
            distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
            each = torch.ones(2)
            distributed.all_reduce(each)
            assert each.tolist() == [1, 1]
            distributed.destroy_process_group()
            assert distributed.is_initialized()  # another training may need it
    assert not distributed.is_initialized()
    assert (distributed.init_process_group, distributed.destroy_process_group) == (make, destroy)


BASE = """
import sys, torch
from torch import nn
{before}
def main():
    torch.manual_seed(0)
    x, y = torch.randn(64, 4), torch.randn(64)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=float(sys.argv[1]))
    for step in range(128):
        optimizer.zero_grad()
        loss = (model(x)[:, 0] - y).square().mean()
        loss.backward()
        optimizer.step()
{each}
if __name__ == "__main__":
    main()
"""
VALUE = "(model(x)[:, 0] - y).square().mean()"


def run(folder: Path, *, before: str = "", each: str = "") -> tuple[list[str], list[str]]:
    """What a script prints at an LR in the search, and what it prints by itself."""
    script = folder / "train.py"
    inner = textwrap.indent(textwrap.dedent(each), " " * 8)
    script.write_text(BASE.format(before=textwrap.dedent(before), each=inner))
    with without_a_process():
        find_by_script(script, ["{lr}"], value=VALUE, steps=128, lrs=[0.01, 0.1], budget=0.1, folder=folder / "found")
    text = (folder / "found" / "output" / "lr0.1-seed0.txt").read_text()
    command = [sys.executable, str(script), "0.1"]
    both = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, check=True
    )
    return text.splitlines(), both.stdout.splitlines()


def test_a_script_prints_what_it_prints_by_itself(tmp_path: Path):
    before = """
        import logging, os, signal, sys, warnings
        print(os.path.isabs(__file__), __name__, len(sys.argv), sys.stdout.encoding, sys.stdout.isatty())
        log = logging.getLogger("own")
        log.addHandler(logging.StreamHandler())
        log.setLevel("INFO")
        signal.signal(signal.SIGTERM, lambda *_: None)
        sys.stdout.reconfigure(line_buffering=True)
        """
    each = """
        log.info("%s", loss.item())
        sys.stdout.buffer.write(f"{loss.item()}\\n".encode())
        sys.stdout.buffer.flush()
        sys.stdout.writelines([f"{loss.item()}", "\\n"])
        """
    driven, alone = run(tmp_path, before=before, each=each)
    assert 4 <= len(driven) < len(alone)
    assert driven == alone[: len(driven)]


def test_what_a_script_prints_is_not_printed_again_by_its_workers(tmp_path: Path):
    before = """
        from torch.utils.data import DataLoader, TensorDataset
        data = TensorDataset(torch.arange(4.0))
        loader = DataLoader(data, num_workers=1, multiprocessing_context="fork", persistent_workers=True)
        """
    each = """
        print(step, end=" ")
        print(sum(batch[0].item() for batch in loader) if step < 2 else loss.item())
        """
    driven, alone = run(tmp_path, before=before, each=each)
    assert 2 <= len(driven) < len(alone)
    assert driven == alone[: len(driven)]


def test_a_script_that_asks_is_not_waited_for(tmp_path: Path):
    with pytest.raises(SearchError, match=r"first 2 trainings failed.* EOFError"):
        run(tmp_path, before="input('continue?')")
    assert "Traceback" in (tmp_path / "found" / "output" / "lr0.1-seed0.txt").read_text()
    assert Finder(tmp_path / "found").results == ()
