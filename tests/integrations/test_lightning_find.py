"""The search for the LR of a LightningModule: each segment is the training it is part of, and nothing else changes."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, random_split

from integrations.lightning_helpers import Digits, loader
from lratlas.errors import SearchError, SpecError, TaskError
from lratlas.integrations.lightning import find
from lratlas.integrations.lightning_segment import LightningTraining, TrainedSegment, train_segment
from lratlas.search.finder import Finder
from lratlas.search.segments import make_segment
from search.find_helpers import advised_lr
from watching.watch_helpers import digits

pytestmark = pytest.mark.filterwarnings(r"ignore:::lightning\.")


class Odd:
    """No tensor and no number, so that it is not safe to load."""


class WithMomentum(Digits):
    """Its optimizer has a state, and one of its hyperparameters is an object."""

    def __init__(self, odd: Odd) -> None:
        super().__init__()
        self.save_hyperparameters()
        assert self.hparams["odd"] is odd

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Stream(IterableDataset[Any]):
    """Digits one after the other; how many is not known."""

    def __iter__(self) -> Iterator[Any]:
        x, y = digits()
        yield from zip(x[:160], y[:160], strict=True)


def training(folder: Path, make: Callable[[], LightningModule] = Digits, **settings: Any) -> LightningTraining:
    given: dict[str, Any] = {
        "train": loader(0, 160, shuffle=True),
        "val": loader(1000, 1100, batch=100),
        "datamodule": None,
        "monitor": "val_loss",
        "options": {"accelerator": "cpu"},
        "warmup": 0,
    }
    return LightningTraining(make_module=make, folder=folder, **given | settings)


def trained(
    of: LightningTraining, *stops: int, lr: float = 0.1, anneal: bool = False
) -> tuple[TrainedSegment, dict[str, Any]]:
    """What came of the last of several segments that follow each other, and its checkpoint."""
    found, parent, start = TrainedSegment(), None, 0
    for stop in stops:
        ending = anneal and stop == stops[-1]
        part = make_segment(lr=lr, seed=3, start=start, stop=stop, parent=parent, anneal_from=start if ending else None)
        found = train_segment(of, part)
        parent, start = part.name, stop
    assert found.steps == stops[-1]
    return found, torch.load(of.checkpoint(str(parent)))


@pytest.mark.parametrize("accumulated", [1, 3])
@pytest.mark.parametrize("data", ["loader", "stream"])
def test_segments_make_up_the_training_that_they_are_parts_of(tmp_path: Path, data: str, accumulated: int) -> None:
    # Ten mini-batches an epoch, so that segments end within and at the end of one
    of = training(
        tmp_path,
        lambda: WithMomentum(Odd()),
        train=DataLoader(Stream(), batch_size=16) if data == "stream" else loader(0, 160, shuffle=True),
        options={"accelerator": "cpu", "accumulate_grad_batches": accumulated},
    )
    whole, state = trained(of, 24)
    parts, other = trained(of, 4, 10, 13, 20, 24)
    assert parts.value == whole.value
    for name, value in state["state_dict"].items():
        assert torch.equal(other["state_dict"][name], value)
    assert whole.losses[-len(parts.losses) :] == parts.losses
    assert other["global_step"] == 24
    assert other["callbacks"]["SegmentFollower"] == state["callbacks"]["SegmentFollower"]


class Groups(Digits):
    """Two parameter groups with a ratio of ten, and a scheduler that would halve the LR every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, ...]] = []

    def configure_optimizers(self) -> Any:
        first, last = self.net[0], self.net[-1]  # pyright: ignore[reportIndexIssue] - it is a Sequential
        groups = [{"params": first.parameters(), "lr": 0.5}, {"params": last.parameters(), "lr": 0.05}]
        optimizer = torch.optim.SGD(groups)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.seen.append(tuple(group["lr"] for group in self.trainer.optimizers[0].param_groups))
        return super().training_step(batch, batch_idx)


class ByHand(Groups):
    """The same, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.seen.append(tuple(group["lr"] for group in self.trainer.optimizers[0].param_groups))
        scheduler.step()
        return loss


@pytest.mark.parametrize("kind", [Groups, ByHand])
def test_every_group_is_scaled_by_one_factor(tmp_path: Path, kind: type[Groups]) -> None:
    made = list[Groups]()

    def make() -> Groups:
        made.append(kind())
        return made[-1]

    trained(training(tmp_path, make, warmup=4), 6, 10, lr=0.2, anneal=True)
    # Up over four steps, constant for two, then to zero over four
    expected = [0.05, 0.1, 0.15, 0.2, 0.2, 0.2, 0.2, 0.15, 0.1, 0.05]
    seen = [rates for module in made for rates in module.seen]
    assert [rates[0] for rates in seen] == pytest.approx(expected)
    assert [rates[1] for rates in seen] == pytest.approx([rate / 10 for rate in expected])


def test_averaged_weights_are_validated_with_their_own_batch_norm_statistics(tmp_path: Path) -> None:
    class Normed(Digits):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32, momentum=0.01), nn.ReLU(), nn.Linear(32, 10))

    class Kept(Callback):
        weights: list[list[Tensor]] = []  # noqa: RUF012 - trainers copy their callbacks

        def on_train_batch_end(
            self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            self.weights.append([value.detach().clone() for value in pl_module.parameters()])

    of = training(tmp_path, Normed, options={"accelerator": "cpu", "callbacks": [Kept()]})
    found, _ = trained(of, 40)
    # The weights of the last tenth of 40 steps, and the statistics over an epoch of equal mini-batches
    model = Normed()
    with torch.no_grad():
        for value, *last in zip(model.parameters(), *Kept.weights[36:40], strict=True):
            value.copy_(sum(last) / 4)
    torch.optim.swa_utils.update_bn((x for x, _ in loader(0, 160)), model.net)
    model.eval()
    [held_out] = loader(1000, 1100, batch=100)
    assert found.averaged == pytest.approx(model.loss(held_out).item(), rel=0.02)
    assert found.value is not None
    assert found.averaged != pytest.approx(found.value, rel=0.02)


class Data(LightningDataModule):
    """Digits; ``set_up`` says whether this very object was."""

    set_up = False

    def setup(self, stage: str) -> None:
        self.set_up = True

    def train_dataloader(self) -> Any:
        assert self.set_up
        return loader(0, 320, shuffle=True)

    def val_dataloader(self) -> Any:
        return loader(1000, 1100, batch=100)


class Fragile(Digits):
    """Raises above an LR of one; the optimizer is not there yet when the segment begins."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.trainer.optimizers[0].param_groups[0]["lr"] > 1:
            raise FloatingPointError("this is too high")
        return super().training_step(batch, batch_idx)


def generator_states() -> list[Any]:
    legacy: Any = np.random.get_state()  # noqa: NPY002
    return [torch.get_rng_state().tolist(), random.getstate(), legacy[1].tolist()]


def test_a_search_finds_an_lr_and_leaves_everything_as_it_was(tmp_path: Path) -> None:
    made = list[Fragile]()

    def make() -> Fragile:
        made.append(Fragile())
        return made[-1]

    data, before = Data(), generator_states()
    settings: dict[str, Any] = {"folder": tmp_path, "steps": 128, "lrs": [0.001, 0.01, 0.1, 10.0], "datamodule": data}
    advice = find(make, **settings, trainer_options={"accelerator": "cpu"})
    assert 0.01 <= advised_lr(advice) < 10
    assert generator_states() == before
    assert not data.set_up
    failed = advice.evidence.filter(advice.evidence["failure"].is_not_null())
    assert failed["lr"].unique().to_list() == [10.0]
    assert failed["failure"][0] == "FloatingPointError: this is too high"
    # The full training can continue from one checkpoint.
    assert [path.stem for path in (tmp_path / "checkpoints").iterdir()] == [advice.segment]
    assert advice.evidence["averaged"].drop_nulls().len() > 4
    # A search that is over has nothing to train
    count = len(made)
    again = find(make, **settings, trainer_options={"accelerator": "cpu"})
    assert again.lr == advice.lr
    assert again.evidence.equals(advice.evidence)
    assert all(not module.losses for module in made[count:])


@pytest.mark.parametrize("combined", [False, True])
def test_several_loaders_go_on_where_they_were_and_keep_their_generators(tmp_path: Path, combined: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    mine = loader(0, 160, shuffle=True, generator=generator)
    before = generator.get_state()
    # The second has four mini-batches, and begins anew while the first goes on to its tenth
    other = loader(0, 64, shuffle=True)
    loaders: Any = [mine, {"second": other}]
    train = CombinedLoader(loaders, "max_size_cycle") if combined else loaders
    of = training(tmp_path, train=train, make=Several)
    whole, _ = trained(of, 17)
    parts, _ = trained(of, 3, 6, 10, 17)
    assert parts.value == whole.value
    assert parts.losses == whole.losses[10:]
    assert torch.equal(generator.get_state(), before)
    assert mine.generator is generator
    if isinstance(train, CombinedLoader):
        assert train.flattened == [mine, other]


class Several(Digits):
    """Takes batches of two loaders at a time."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        one, other = batch[0], batch[1]["second"]
        return super().training_step(one, batch_idx) + self.loss(other)


def test_a_diverging_training_stops_early(tmp_path: Path) -> None:
    class Exploding(Digits):
        def loss(self, batch: list[Tensor]) -> Tensor:
            return self.net(batch[0]).square().sum()

    part = make_segment(lr=10.0, seed=0, start=0, stop=1000, parent=None)
    found = train_segment(training(tmp_path, Exploding), part)
    assert found.value is None
    assert found.steps < 200
    assert not np.isfinite(found.losses).all()


def module_of(data: Data) -> LightningModule:
    """A module that brings its loaders with it."""
    module = Digits()
    for name in ("train_dataloader", "val_dataloader"):
        setattr(module, name, getattr(data, name))
    return module


def test_a_module_with_loaders_of_its_own(tmp_path: Path) -> None:
    data = Data()
    data.set_up = True
    of = training(tmp_path, lambda: module_of(data), train=None, val=None)
    whole, _ = trained(of, 24)
    parts, _ = trained(of, 11, 24)
    assert (parts.value, parts.averaged) == (whole.value, whole.averaged)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"monitor": "val_accuracy"}, SpecError, "no 'val_accuracy' but val_loss"),
        ({"trainer_options": {"max_epochs": 3}}, SpecError, "sets max_epochs; find sets it itself"),
        ({"trainer_options": {"devices": 2}}, SpecError, "devices = 2"),
        ({"trainer_options": {"precission": 16}}, SpecError, "precission"),
        ({"warmup": -1}, SpecError, "warmup is -1"),
        ({"make_module": lambda: nn.Linear(2, 2)}, TaskError, "a Linear; it must return a LightningModule"),
    ],
)
def test_what_cannot_be_searched_is_said(
    tmp_path: Path, settings: dict[str, Any], error: type[Exception], said: str
) -> None:
    given: dict[str, Any] = {
        "make_module": Digits,
        "folder": tmp_path,
        "steps": 64,
        "train_dataloaders": loader(0, 160),
        "val_dataloaders": loader(1000, 1100),
    }
    with pytest.raises(error, match=said):
        find(**given | settings)


def test_a_factory_that_makes_nothing_new_is_refused(tmp_path: Path) -> None:
    module = Digits()
    before = [value.clone() for value in module.parameters()]
    with pytest.raises(TaskError, match="the same module twice"):
        find(lambda: module, folder=tmp_path, steps=64, train_dataloaders=loader(0, 160), val_dataloaders=loader(0, 16))
    assert all(torch.equal(one, other) for one, other in zip(before, module.parameters(), strict=True))


def test_a_module_that_fails_at_every_lr_says_why(tmp_path: Path) -> None:
    class Broken(Digits):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            raise ValueError("no such thing")

    with pytest.raises(SearchError, match="ValueError: no such thing"):
        find(
            Broken,
            folder=tmp_path,
            steps=64,
            lrs=[0.1, 1.0],
            train_dataloaders=loader(0, 160),
            val_dataloaders=loader(0, 16),
            trainer_options={"accelerator": "cpu"},
        )


class Noise(LightningDataModule):
    """Labels that say nothing, and a split that is drawn where tutorials draw it; validation is made in fit alone."""

    def setup(self, stage: str) -> None:
        draws = torch.Generator().manual_seed(0)
        data = TensorDataset(torch.randn(64, 64, generator=draws), torch.randint(2, (64,), generator=draws))
        if stage == "fit":
            self.held, self.rest = random_split(data, [32, 32])

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.rest, batch_size=16, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.held, batch_size=32)


class Guessing(Digits):
    """Wide enough to learn labels by heart; it may bring its data itself."""

    def __init__(self, data: Noise | None = None) -> None:
        super().__init__()
        self.net, self.data = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 2)), data

    def setup(self, stage: str) -> None:
        if self.data:
            self.data.setup(stage)

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.data
        return self.data.train_dataloader()

    def val_dataloader(self) -> DataLoader[Any]:
        assert self.data
        return self.data.val_dataloader()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("accuracy", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())


@pytest.mark.parametrize("own", [False, True])
def test_nothing_that_is_trained_on_is_validated_on(own: bool, tmp_path: Path) -> None:
    find(
        lambda: Guessing(Noise() if own else None),
        folder=tmp_path,
        steps=256,
        lrs=[0.03, 0.1],
        budget=1.0,
        datamodule=None if own else Noise(),
        monitor="accuracy",
        direction="maximize",
        trainer_options={"accelerator": "cpu"},
    )
    results = Finder(tmp_path).results
    assert min(each.losses[-1] for each in results if each.losses) < 0.3  # known by heart
    # Of 32 samples that were never trained on, no more are right than by chance, but for four standard errors.
    assert all(each.value is not None and abs(each.value - 0.5) < 4 * (0.25 / 32) ** 0.5 for each in results)
