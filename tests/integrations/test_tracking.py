"""What experiment trackers hold after looks were logged to them, read back with their own libraries."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import polars as pl
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from lratlas.integrations.tracking import evidence_of, log_to_mlflow, log_to_tensorboard, numbers_of
from lratlas.monitor.tracker import Look
from lratlas.monitor.watch import watch
from lratlas.search.advice import COMPARED, EVIDENCE, Advice

# SQLAlchemy warns MLflow
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

CONVERGING = Look(step=300, phase_step=300, regime="converging", loss=0.5, fall=0.1, falling_p=1e-6, lr=0.1)
DIVERGING = Look(step=320, phase_step=320, regime="diverging", lr=0.1, gradient_norm=float("inf"))


def row(lr: float, steps: int, **known: Any) -> dict[str, Any]:
    return dict.fromkeys(EVIDENCE) | {"lr": lr, "seed": 0, "steps": steps, "annealed": False, "seconds": 1.0} | known


ADVICE = Advice(
    verdict="found",
    reason="",
    lr=0.5,
    low=0.25,
    high=1.0,
    finish="average",
    expected=0.5,
    expected_low=0.25,
    expected_high=1.0,
    best_steps=4,
    best=0.5,
    direction="minimize",
    convergence=None,
    divergence=None,
    cost=1.5,
    steps=8,
    segment=None,
    compared=pl.DataFrame(schema=COMPARED),
    evidence=pl.DataFrame(
        [
            row(0.5, 2, value=1.0, averaged=0.75, regime="converging"),
            row(0.5, 4, value=0.75, averaged=0.5, regime="converging"),
            row(0.5, 5, value=0.5) | {"annealed": True},
            row(2.0, 2, failure="loss 1 of 2 is not finite"),
        ],
        schema=EVIDENCE,
    ),
    warnings=(),
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """MLflow with its own database, in a folder where it may leave others."""
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment("test", artifact_location=str(tmp_path / "artifacts"))
    mlflow.set_experiment("test")
    yield
    mlflow.set_tracking_uri(before)


def test_what_is_not_known_or_not_finite_is_left_out() -> None:
    assert numbers_of(CONVERGING) == {"watch/regime": 1.0, "watch/loss": 0.5, "watch/fall": 0.1, "watch/lr": 0.1}
    assert numbers_of(DIVERGING, prefix="net") == {"net/regime": 3.0, "net/lr": 0.1}


def test_evidence_is_a_series_for_each_trial() -> None:
    assert evidence_of(ADVICE, prefix="search") == {
        2: {"search/value/lr0.5-seed0": 1.0, "search/averaged/lr0.5-seed0": 0.75},
        4: {"search/value/lr0.5-seed0": 0.75, "search/averaged/lr0.5-seed0": 0.5},
        5: {"search/value/lr0.5-seed0-annealed": 0.5},
        8: {"search/lr": 0.5, "search/low": 0.25, "search/high": 1.0},
    }


def test_tensorboard(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with SummaryWriter(tmp_path) as writer:
        seen = watch(optimizer, on_change=partial(log_to_tensorboard, writer))
        for loss in (1.0, float("nan"), float("nan"), float("nan")):
            weight.grad = torch.ones(2)
            optimizer.step()
            seen(loss)
        seen.close()
        log_to_tensorboard(writer, CONVERGING)
        log_to_tensorboard(writer, ADVICE)
    written = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in written.Scalars("watch/regime")] == [3.0, 1.0]
    [loss] = written.Scalars("watch/loss")
    assert (loss.step, loss.value) == (300, 0.5)
    assert [(event.step, event.value) for event in written.Scalars("find/averaged/lr0.5-seed0")] == [
        (2, 0.75),
        (4, 0.5),
    ]
    assert [event.value for event in written.Scalars("find/lr")] == [0.5]
    [statement] = written.Tensors("find/advice/text_summary")
    assert b"0.5" in statement.tensor_proto.string_val[0]


@pytest.mark.usefixtures("store")
def test_mlflow(tmp_path: Path) -> None:
    with mlflow.start_run() as run:
        log_to_mlflow(CONVERGING)
        log_to_mlflow(DIVERGING)
        log_to_mlflow(ADVICE)
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "watch/regime")
    assert [(metric.step, metric.value) for metric in history] == [(300, 1.0), (320, 3.0)]
    assert mlflow.MlflowClient().get_run(run.info.run_id).data.metrics["watch/loss"] == 0.5
    trial = mlflow.MlflowClient().get_metric_history(run.info.run_id, "find/averaged/lr0.5-seed0")
    assert [(metric.step, metric.value) for metric in trial] == [(2, 0.75), (4, 0.5)]
    artifacts = Path(tmp_path, "artifacts", run.info.run_id, "artifacts", "find")
    assert pl.read_csv(artifacts / "evidence.csv", schema=EVIDENCE).equals(ADVICE.evidence)
    assert "0.5" in (artifacts / "advice.txt").read_text(encoding="utf-8")


def test_trackio(tmp_path: Path) -> None:
    # It reads the folder that it writes to from the environment, once, so it gets its own process
    (tmp_path / "found").write_bytes(pickle.dumps([CONVERGING, DIVERGING, ADVICE]))
    (tmp_path / "script.py").write_text(
        "import pathlib, pickle, trackio\n"
        "from lratlas.integrations.tracking import log_to_trackio\n"
        'run = trackio.init(project="test", name="one")\n'
        'looks = pickle.loads(pathlib.Path("found").read_bytes())\n'
        "log_to_trackio(looks[0])\n"
        "log_to_trackio(looks[1], run=run)\n"
        "log_to_trackio(looks[2])\n"
        "trackio.finish()\n",
        encoding="utf-8",
    )
    _python(tmp_path, "script.py")
    expected = {"watch/regime": [(300, 1.0), (320, 3.0)], "find/averaged/lr0.5-seed0": [(2, 0.75), (4, 0.5)]}
    for name, values in expected.items():
        words = ("get", "metric", "--project", "test", "--run", "one", "--metric", name, "--json")
        found = json.loads(_python(tmp_path, "-m", "trackio.cli", *words))
        assert sorted((value["step"], value["value"]) for value in found["values"]) == values


def _python(folder: Path, *words: str) -> str:
    environment = os.environ | {"TRACKIO_DIR": str(folder / "trackio"), "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert process.returncode == 0, process.stderr[-1000:]
    return process.stdout
