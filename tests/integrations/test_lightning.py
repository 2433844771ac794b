"""`watch` in real trainings by Lightning."""

import csv
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from integrations.lightning_helpers import Digits
from lratlas.errors import SpecError
from lratlas.integrations.lightning import WatchCallback
from lratlas.monitor.tracker import Look
from monitor.watch_helpers import digits


class Two(Digits):
    """Two networks with an optimizer each, stepped by hand."""

    def __init__(self, *, named: bool = True) -> None:
        super().__init__()
        self.other, self.named = nn.Linear(64, 10), named
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        x, y = batch
        found = dict[str, Tensor]()
        optimizers: Any = self.optimizers()
        found["first"] = nn.functional.cross_entropy(self.net(x), y)
        found["second"] = self.other(x).square().mean()
        for name, optimizer in zip(("first", "second"), optimizers, strict=True):
            optimizer.zero_grad()
            self.manual_backward(found[name])
            optimizer.step()
        return found if self.named else None

    def configure_optimizers(self) -> Any:
        # The second one's is far too high, so that its loss soon is infinite
        return torch.optim.SGD(self.net.parameters(), lr=0.1), torch.optim.SGD(self.other.parameters(), lr=1e4)


def fitted(module: LightningModule, steps: int, *callbacks: WatchCallback, resumed: Path | None = None, **options: Any):
    torch.manual_seed(1)
    loader = DataLoader(TensorDataset(*digits()), batch_size=32, shuffle=True)
    silent: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", callbacks=list(callbacks), enable_checkpointing=False, **silent | options
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader, ckpt_path=resumed)
    return trainer


def weights(module: LightningModule) -> list[Tensor]:
    return [value.detach() for value in module.state_dict().values()]


def test_the_training_is_the_same_and_its_losses_are_the_real_ones(tmp_path: Path) -> None:
    plain, watched = Digits(dropout=0.1), Digits(dropout=0.1)
    watched.load_state_dict(plain.state_dict())
    changes = list[Look]()
    callback = WatchCallback(average=True, chance_loss=2.3026, on_change=changes.append)
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    fitted(plain, 400, accumulate_grad_batches=2)
    fitted(watched, 400, callback, accumulate_grad_batches=2, logger=logger)
    assert all(torch.equal(one, other) for one, other in zip(weights(plain), weights(watched), strict=True))
    assert torch.equal(torch.tensor(plain.losses), torch.tensor(watched.losses))
    [seen] = callback.watches
    assert seen.steps == 400
    last = seen.log[-1]
    assert last.regime == "converging"
    assert "converging" in callback.report()
    # A look's loss is the mean over the last quarter of the steps, here of two mini-batches each
    assert last.loss == pytest.approx(sum(watched.losses[-200:]) / 200, rel=0.1)
    assert [look.regime for look in changes] == ["converging"]
    rows = list(csv.DictReader(Path(logger.log_dir, "metrics.csv").read_text(encoding="utf-8").splitlines()))
    assert [int(row["step"]) for row in rows] == [look.step for look in seen.log]
    assert [float(row["watch/regime"]) for row in rows] == [1.0] * len(seen.log)
    assert float(rows[-1]["watch/loss"]) == pytest.approx(last.loss)


def test_each_of_several_optimizers_is_watched(tmp_path: Path) -> None:
    callback = WatchCallback(losses=("first", "second"), chance_loss=2.3026)
    logger = CSVLogger(tmp_path)
    fitted(Two(), 2 * 300, callback, logger=logger)  # Lightning counts the steps of both
    assert [seen.steps for seen in callback.watches] == [300, 300]
    assert [seen.regime for seen in callback.watches] == ["converging", "diverging"]
    assert callback.report().count("\noptimizer 1: ") == 1
    logged = Path(logger.log_dir, "metrics.csv").read_text(encoding="utf-8")
    assert "watch/0/regime" in logged
    assert "watch/1/regime" in logged


def test_losses_that_cannot_be_found_are_named() -> None:
    with pytest.raises(SpecError, match="returned no 'loss' but first, second"):
        fitted(Two(), 4, WatchCallback())
    with pytest.raises(SpecError, match="returned no 'first' but nothing"):
        fitted(Two(named=False), 4, WatchCallback(losses=("first", "second")))
    with pytest.raises(SpecError, match="has 1 losses, but there are 2 optimizers"):
        fitted(Two(), 4, WatchCallback(losses=["first"]))


def test_a_resumed_training_goes_on_being_watched(tmp_path: Path) -> None:
    first = WatchCallback(average=True)
    fitted(Digits(), 280, first).save_checkpoint(tmp_path / "middle.ckpt")
    second = WatchCallback(average=True)
    fitted(Digits(), 300, second, resumed=tmp_path / "middle.ckpt")
    assert second.watches[0].steps == 300
    assert second.watches[0].log[: len(first.watches[0].log)] == first.watches[0].log
    other = WatchCallback(losses=("first", "second"))
    other.load_state_dict(first.state_dict())
    with pytest.raises(SpecError, match="watches for 1 optimizers, but there are 2"):
        fitted(Two(), 4, other)
