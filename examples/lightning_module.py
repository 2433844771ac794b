"""The initial LR of a LightningModule: found, used, and watched.

In this folder:  python lightning_module.py
"""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lratlas.data import digits
from lratlas.integrations.lightning import WatchCallback, find

STEPS = 800  # optimizer steps of a full training
FOLDER = Path("lightning-search")


class Digits(LightningModule):
    """An MLP that logs its validation accuracy."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("val_accuracy", (self.net(x).argmax(1) == y).float().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
    """The digits for training and for validation."""
    train, held_out = (TensorDataset(*pair) for pair in digits())
    return DataLoader(train, batch_size=32, shuffle=True), DataLoader(held_out, batch_size=len(held_out))


class LastTenth(WeightAveraging):
    """The average of the weights of the last tenth of the steps, which the module has once it is trained."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx >= STEPS * 9 // 10


def main() -> None:
    """Search, then train as it is advised, in a regime that the callback tells."""
    train, validation = loaders()
    advice = find(
        Digits,
        train_dataloaders=train,
        val_dataloaders=validation,
        monitor="val_accuracy",
        trainer_options={"max_steps": STEPS},
        folder=FOLDER,
    )
    print(advice)
    if advice.lr is None:  # no LR differed from the others
        return
    seed_everything(0, verbose=False)
    module, watch = Digits(advice.lr), WatchCallback()
    options: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_steps=STEPS, callbacks=[watch, LastTenth()], default_root_dir=FOLDER / "training", **options)
    trainer.fit(module, train)
    print(watch.report())
    (reached,) = trainer.validate(module, validation, verbose=False)
    print(f"Validation accuracy of the averaged weights: {reached['val_accuracy']:.3f}")


if __name__ == "__main__":
    main()
