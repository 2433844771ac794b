"""Training segments, compared with plain PyTorch."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import lratlas
from lratlas.search.segment_trainer import SegmentTrainer, train_segments, write_checkpoint
from lratlas.search.segments import Segment, make_segment
from lratlas.training.batches import batch_indices
from lratlas.training.prepared import make_model
from lratlas.training.trainer import train_stack

SAMPLES, HELD, BATCH = 128, 4000, 16


def data(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 4, generator=generator)
    return x, x.sum(1, keepdim=True) + torch.randn(count, 1, generator=generator)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def trainer(folder: Path, **changes: Any) -> SegmentTrainer:
    given: dict[str, Any] = {
        "model": network,
        "train": data(SAMPLES, 0),
        "validation": data(HELD, 1),
        "test": data(8, 2),
        "batch_size": BATCH,
        "rule": "sgd",
        "loss": "mse",
    }
    (folder / "strategy.txt").write_text("stack")
    task = lratlas.Task(**(given | changes)).prepared
    return SegmentTrainer(task=task, root=folder, device=torch.device("cpu"), steps=640)


def plain(on: SegmentTrainer, model: nn.Module, of: Segment, *, start: int | None = None) -> nn.Module:
    """The model after the steps of a segment in an ordinary loop."""
    x, y = data(SAMPLES, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=of.lr)
    first = of.start if start is None else start
    order = batch_indices(seed=of.seed, start=first, stop=of.stop, samples=SAMPLES, batch_size=BATCH)
    for step, rows in enumerate(order, start=first):
        optimizer.param_groups[0]["lr"] = of.lr_at(step)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x[rows]), y[rows]).backward()
        optimizer.step()
    assert on.task.samples == SAMPLES
    return model


def squared_errors(model: nn.Module) -> torch.Tensor:
    x, y = data(HELD, 1)
    with torch.no_grad():
        return (model(x) - y).double().square()[:, 0]


def fresh(lrs: Sequence[float], stop: int, **others: Any) -> list[Segment]:
    return [make_segment(lr=lr, seed=3, start=0, stop=stop, parent=None, **others) for lr in lrs]


@pytest.mark.parametrize(
    "others", [{}, {"schedule": "linear"}, {"schedule": "cosine", "warmup": 20}, {"anneal_from": 51}]
)
def test_a_segment_is_an_ordinary_training(others: dict[str, Any], tmp_path: Path):
    on, segments = trainer(tmp_path), fresh([0.01, 0.1], 64, **others)
    for each, trained in zip(segments, train_segments(on, segments), strict=True):
        errors = squared_errors(plain(on, make_model(on.task, 3), each))
        value = trained.averaged if trained.value is None else trained.value
        if others:
            assert trained.averaged is None
            assert value == pytest.approx(float(errors.mean()), rel=1e-4)
        else:
            # The last tenth hardly changes the weights.
            assert trained.averaged == pytest.approx(float(errors.mean()), rel=0.1)


def test_the_error_is_that_of_the_mean_over_validation_samples(tmp_path: Path):
    on, segments = trainer(tmp_path), fresh([0.03], 128, schedule="linear")
    (trained,) = train_segments(on, segments)
    errors = squared_errors(plain(on, make_model(on.task, 3), segments[0]))
    assert trained.error is not None
    # From few parts it is known to within a factor.
    assert 0.3 < trained.error / (float(errors.std()) / math.sqrt(HELD)) < 2


def test_the_error_of_an_accuracy_follows_from_its_value(tmp_path: Path):
    labels = [(x, (y[:, 0] > 0).long()) for x, y in (data(SAMPLES, 0), data(HELD, 1))]
    given: dict[str, Any] = {"train": labels[0], "validation": labels[1], "test": labels[1], "loss": "cross_entropy"}
    on = trainer(tmp_path, model=lambda: nn.Linear(4, 2), **given)
    (trained,) = train_segments(on, fresh([0.03], 128))
    assert trained.error is None


@pytest.mark.parametrize(
    "others",
    [{"schedule": "linear"}, {"schedule": "cosine", "warmup": 100}, {"warmup": 400}, {"anneal_from": 400}],
)
def test_an_lr_that_changes_is_held_for_short_stretches(
    others: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stop, lrs = 700, list[float]()
    (segment,) = fresh([1e-3], stop, **others)

    def recorded(program: Any, stack: Any, **given: Any) -> Any:
        lrs.extend([float(given["lrs"][0, 0])] * len(given["batches"]))
        return train_stack(program, stack, **given)

    monkeypatch.setattr("lratlas.search.segment_trainer.train_stack", recorded)
    train_segments(trainer(tmp_path), [segment])
    assert len(lrs) == stop
    exact = [segment.lr_at(step) for step in range(stop)]
    worst = max(abs(one - other) for one, other in zip(lrs, exact, strict=True))
    assert worst < 0.03 * segment.lr
    # Over a training the difference cancels out.
    assert sum(lrs) == pytest.approx(sum(exact), rel=2e-3)


@pytest.mark.parametrize("model", [network, lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))])
def test_a_checkpoint_is_the_state_of_the_model(model: Any, tmp_path: Path):
    on, segments = trainer(tmp_path, model=model), fresh([0.01, 0.1], 64)
    train_segments(on, segments)
    path = write_checkpoint(on, segments[1])
    loaded = model()
    loaded.load_state_dict(load_file(path))
    expected = plain(on, make_model(on.task, 3), segments[1])
    for name, value in expected.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name].double(), value.double(), rtol=1e-4, atol=1e-5), name


def test_from_a_checkpoint_plain_pytorch_does_what_the_search_does(tmp_path: Path):
    on, (first,) = trainer(tmp_path), fresh([0.05], 64)
    second = make_segment(lr=0.05, seed=3, start=64, stop=128, parent=first.name)
    train_segments(on, [first])
    model = network()
    model.load_state_dict(load_file(write_checkpoint(on, first)))
    train_segments(on, [second])
    own = load_file(write_checkpoint(on, second))
    plain(on, model, second)
    for name, value in model.state_dict().items():
        assert torch.allclose(own[name], value, atol=1e-5), name


def test_what_diverges_is_not_a_number(tmp_path: Path):
    on, segments = trainer(tmp_path), fresh([0.01, 1e30], 128)
    good, broken = train_segments(on, segments)
    assert good.value is not None
    assert math.isfinite(good.value)
    assert broken.value is not None
    assert math.isnan(broken.value)
    assert not all(map(math.isfinite, broken.losses))
