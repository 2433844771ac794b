"""A small LightningModule, as users write them."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from monitor.watch_helpers import digits


class Digits(LightningModule):
    """A small MLP on digits that logs its validation loss; ``losses`` are those that ``training_step`` found."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.net: nn.Module = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 10))
        self.losses = list[float]()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def loss(self, batch: list[Tensor]) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)


def loader(first: int, last: int, *, batch: int = 16, **options: Any) -> DataLoader[Any]:
    """Some of the digits."""
    x, y = digits()
    return DataLoader(TensorDataset(x[first:last], y[first:last]), batch_size=batch, **options)
