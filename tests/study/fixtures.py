"""Small tasks, and studies of them made in this very process, without workers."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from cheaper import unfigured, workerless
from lratlas import Task
from lratlas.atlas import Atlas
from lratlas.config.sections import Spec
from lratlas.config.spec import spec_from
from lratlas.config.tasks import Tasks
from lratlas.models.mlp import MLP
from lratlas.study.run import open_study, run_study
from study.pictures import picture_spec, write_pictures

SECTIONS: dict[str, Any] = {
    "pretrain": {"lrs": [1e-3, 1e-2, 1e-1], "steps": 20, "repeats": 2},
    "finetune": {"lrs": [1e-3, 1e-2], "steps": 12},
    "average": {"counts": [2, 4], "every": 3},
    "trace": {"points": 4},
    "measure": {"interpolation": 3},
    "training": {"compile": False, "strategy": "stack", "stack": 3, "segment_steps": 10},
}


def blobs(**changes: Any) -> Task:
    """Two noisy classes, 40 samples of 4 numbers, with two single-feature sets and a small SI model."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=draw)
    y = (x[:, 0] + 0.3 * torch.randn(64, generator=draw) > 0).long()
    fields: dict[str, Any] = {
        "name": "blobs",
        "model": partial(MLP, 4, (6,), 2, scale_invariant=True),
        "train": (x[:40], y[:40]),
        "test": (x[40:], y[40:]),
        "batch_size": 8,
        "rule": "sphere_sgd",
        "singles": (torch.randn(2, 10, 4, generator=draw), torch.arange(20).reshape(2, 10) % 2),
    }
    return Task(**(fields | changes))


def explored_in(
    folder: Path,
    task: Task | None = None,
    notices: list[str] | None = None,
    more: Sequence[float] = (),
    **changes: Any,
) -> Atlas:
    made = task or blobs()
    sections = {name: value for name, value in (SECTIONS | changes).items() if value is not None}
    spec = spec_from({"name": made.name, "task": {"preset": "python"}, **sections})
    store = open_study(folder, spec)
    tasks = Tasks(make=lambda _: made.prepared, generated=False)
    run_study(store, spec, more=more, tasks=tasks, notice=(notices if notices is not None else list[str]()).append)
    return Atlas(store)


@pytest.fixture
def explored() -> Iterator[Callable[..., Atlas]]:
    """A function of (folder, task, notices, sections that differ from ``SECTIONS``) that runs a study here."""
    with workerless(), unfigured():
        yield explored_in


def _conducted(folder: Path, spec: Spec, notices: list[str] | None = None) -> Atlas:
    store = open_study(folder, spec)
    run_study(store, spec, notice=(notices if notices is not None else list[str]()).append)
    return Atlas(store)


@pytest.fixture
def conducted() -> Iterator[Callable[..., Atlas]]:
    """A function of (folder, spec, notices) that runs the study of a spec here."""
    with workerless():
        yield _conducted


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of tiny images."""
    return write_pictures(tmp_path_factory.mktemp("pictures") / "pictures.npz")


@pytest.fixture(scope="session")
def picture_study(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole study of tiny images; to be read, not changed."""
    folder = tmp_path_factory.mktemp("studies") / "pictures"
    with workerless():
        _conducted(folder, picture_spec(pictures))
    return folder


@pytest.fixture(scope="session")
def small_task() -> Callable[..., Task]:
    """A function that makes the small task, with changes."""
    return blobs


@pytest.fixture(scope="session")
def sections() -> dict[str, Any]:
    """The sections of the small study."""
    return SECTIONS


@pytest.fixture(scope="session")
def whole_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small study, finished; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("studies") / "whole"
    with workerless():
        explored_in(folder)
    return folder


@pytest.fixture
def finished(whole_study: Path, tmp_path: Path) -> Path:
    """A copy of the small study, finished."""
    import shutil

    return shutil.copytree(whole_study, tmp_path / "study")
