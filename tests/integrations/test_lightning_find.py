"""The search for the LR of a LightningModule: its trainings are Lightning's own, and nothing else changes."""

import copy
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, random_split
from torchmetrics.classification import MulticlassAccuracy

from integrations.lightning_helpers import Digits, loader
from lratlas.errors import LRAtlasError, SearchError, SpecError, TaskError
from lratlas.integrations.lightning import find
from lratlas.integrations.lightning_fit import package_of
from lratlas.rng import seed_generators
from lratlas.search.advice import Advice
from lratlas.search.finder import Finder
from monitor.watch_helpers import digits
from search.find_helpers import advised_lr

pytestmark = pytest.mark.filterwarnings(r"ignore:::lightning\.")
CPU = {"accelerator": "cpu"}
LRS = [0.01, 0.1]


def searched(module: Any, folder: Path, *, options: dict[str, Any] | None = None, **settings: Any) -> Advice:
    """The advice of a small search."""
    if "datamodule" not in settings:
        data = {"train_dataloaders": loader(0, 160, shuffle=True), "val_dataloaders": loader(1000, 1100, batch=64)}
        settings = data | settings
    if not {"max_steps", "max_epochs"} & (options or {}).keys():
        settings = {"steps": 64} | settings
    given: dict[str, Any] = {"folder": folder, "lrs": LRS, "budget": 0.5, "trainer_options": CPU | (options or {})}
    return find(module, **given | settings)


class Traced(Digits):
    """Dropout, batch norm and a metric of training and validation; every step notes what it begins with."""

    def __init__(self, lr: float, traces: list[list[Any]]) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="traces")
        self.net = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))
        self.accuracy, self.val_accuracy = MulticlassAccuracy(10), MulticlassAccuracy(10)
        self.trace = list[Any]()
        traces.append(self.trace)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.accuracy(self.net(batch[0]), batch[1])
        self.log("train_accuracy", self.accuracy, on_step=True, on_epoch=True, prog_bar=True)
        weights = b"".join(each.numpy().tobytes() for each in self.state_dict().values())
        optimizers: Any = self.trainer.optimizers
        rates = [group["lr"] for each in optimizers for group in each.param_groups]
        right: Any = self.accuracy.tp
        self.trace.append((weights, loss.item(), rates, int(right.sum())))
        return loss

    def on_train_epoch_end(self) -> None:
        self.trace[-1] += (float(self.trainer.callback_metrics["train_accuracy_epoch"]),)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.val_accuracy(self.net(batch[0]), batch[1])
        self.log("val_accuracy", self.val_accuracy, on_epoch=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"], momentum=0.9)


class ByHand(Traced):
    """The same, stepped by hand."""

    def __init__(self, lr: float, traces: list[list[Any]]) -> None:
        super().__init__(lr, traces)
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss


class Plateau(Traced):
    """Its LR falls with the metric of the epochs; trainings continue all the same."""

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        scheduler = ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}


@pytest.mark.parametrize(
    ("kind", "options"), [(Traced, {}), (Traced, {"accumulate_grad_batches": 3}), (ByHand, {}), (Plateau, {})]
)
def test_a_searched_training_is_lightnings_own(tmp_path: Path, kind: type[Traced], options: dict[str, Any]) -> None:
    traces = list[list[Any]]()
    advice = searched(partial(kind, traces=traces), tmp_path, options=options, monitor="val_accuracy", budget=1.0)
    assert (advice.schedule, advice.direction, advice.limit) == ("constant", "maximize", 1.0)
    finder = Finder(tmp_path)
    assert (finder.search.steps, finder.search.samples) == (64, 100)
    result = max((each for each in finder.results if not each.segment.seed), key=lambda each: each.segment.start)
    last = result.segment
    assert last.start > 0  # it was continued
    with seed_generators(0):
        module = kind(last.lr, plain := list[list[Any]]())
        more = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        trainer = Trainer(max_steps=last.stop, logger=False, **CPU, **more, **options)
        trainer.fit(module, loader(0, 160, shuffle=True), loader(1000, 1100, batch=64))
    longest = max((each for each in traces if each[0][2][0] == last.lr), key=len)
    plain[0][-1] = plain[0][-1][:4]  # the searched one was suspended in its last step
    assert longest == plain[0]
    assert len(longest) > 10  # more than an epoch
    (own,) = trainer.validate(module, loader(1000, 1100, batch=64), verbose=False)
    assert result.value == pytest.approx(own["val_accuracy"], abs=1e-6)


class Scheduled(Traced):
    """An LR schedule that knows the length from the trainer, or not."""

    def __init__(self, lr: float, traces: list[list[Any]], kind: str) -> None:
        super().__init__(lr, traces)
        self.kind = kind

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])
        if self.kind == "steps":
            steps = int(self.trainer.estimated_stepping_batches)
            scheduler: Any = LambdaLR(optimizer, lambda step: 1 - step / steps)
        elif self.kind == "epochs":
            epochs = self.trainer.max_epochs
            assert epochs
            scheduler = LambdaLR(optimizer, lambda epoch: 1 - epoch / epochs)
        elif self.kind == "cycle":
            steps = int(self.trainer.estimated_stepping_batches)
            scheduler = OneCycleLR(optimizer, max_lr=self.hparams["lr"], total_steps=steps)
        else:
            scheduler = StepLR(optimizer, step_size=4)
        interval = "step" if self.kind in {"steps", "cycle"} else "epoch"
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}


@pytest.mark.parametrize(
    ("kind", "falls", "factor"),  # how often it falls in a training, and what then multiplies it or is taken off
    [("steps", 80, None), ("epochs", 8, None), ("hard-coded", 2, 0.1)],
)
def test_a_schedule_is_shrunk_to_each_comparison(tmp_path: Path, kind: str, falls: int, factor: float | None) -> None:
    traces = list[list[Any]]()
    # 10 mini-batches an epoch
    advice = searched(partial(Scheduled, traces=traces, kind=kind), tmp_path, options={"max_epochs": 8}, budget=0.7)
    assert (advice.schedule, advice.finish) == ("own", "schedule")
    finder = Finder(tmp_path)
    assert finder.search.steps == 80
    stops = {each.segment.stop for each in finder.results}
    assert len(stops) > 2
    assert {each.segment.start for each in finder.results} == {0}
    rates = [[step[2][0] for step in trace] for trace in traces]
    for stop in stops:
        done = [falls * step // stop for step in range(stop)]
        expected = [0.1 * (1 - count / falls if factor is None else factor**count) for count in done]
        assert any(trained == pytest.approx(expected) for trained in rates)


def test_one_cycle(tmp_path: Path) -> None:
    traces = list[list[Any]]()
    searched(partial(Scheduled, traces=traces, kind="cycle"), tmp_path, lrs=[0.1])
    longest = [step[2][0] for step in max(traces, key=len)]
    assert max(longest) == pytest.approx(0.1, rel=0.05)
    assert longest[0] < 0.01
    assert longest[-1] < 0.03


def _noted(seen: list[tuple[float, ...]], optimizer: torch.optim.Optimizer, *_: Any) -> None:
    seen.append(tuple(each["lr"] for each in optimizer.param_groups))


class Groups(Digits):
    """Two parameter groups with a ratio of ten; nothing is passed to it."""

    seen: list[tuple[float, ...]] = []  # noqa: RUF012 - of all copies

    def configure_optimizers(self) -> Any:
        first, last = self.net[0], self.net[-1]  # pyright: ignore[reportIndexIssue] - it is a Sequential
        groups = [{"params": first.parameters(), "lr": 0.5}, {"params": last.parameters(), "lr": 0.05}]
        optimizer = torch.optim.SGD(groups)
        optimizer.register_step_post_hook(partial(_noted, self.seen))
        return optimizer


@pytest.mark.parametrize("ready", [False, True])
def test_lrs_of_a_module_that_is_given_none_are_scaled_by_one_factor(tmp_path: Path, ready: bool) -> None:
    Groups.seen.clear()
    module = Groups()
    before = copy.deepcopy(module.state_dict())
    advice = searched(module if ready else Groups, tmp_path)
    assert {rates[0] for rates in Groups.seen} - {0.5} == set(LRS)  # and its own, at which it is looked at first
    assert all(rates[1] == pytest.approx(rates[0] / 10) for rates in Groups.seen)
    assert advice.high in LRS
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert vars(module)["_trainer"] is None


class Rivals(LightningModule):
    """Two nets with an optimizer each, as in generative adversarial training; pictures go to the logger."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.lr, self.makes, self.judges = lr, nn.Linear(8, 64), nn.Linear(64, 1)
        self.made: Tensor | None = None

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        makes, judges = self.optimizers()  # pyright: ignore[reportGeneralTypeIssues] - there are two
        for optimizer, sign in ((makes, -1), (judges, 1)):
            self.toggle_optimizer(optimizer)
            self.made = self.makes(torch.randn(len(batch[0]), 8))
            loss = sign * (self.judges(self.made).mean() - self.judges(batch[0]).mean())
            self.log("made_loss" if sign < 0 else "judged_loss", loss, prog_bar=True)
            self.manual_backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            self.untoggle_optimizer(optimizer)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_distance", (self.makes(torch.zeros(8)) - batch[0].mean(0)).norm())

    def on_validation_epoch_end(self) -> None:
        logger: Any = self.logger
        logger.experiment.add_image("made", self.makes(torch.zeros(8)).reshape(8, 8), self.current_epoch)
        logger.log_image(key="made", images=[self.made])
        assert Path(logger.save_dir).is_absolute()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(each.parameters(), lr=self.lr) for each in (self.makes, self.judges)], []


def test_several_optimizers(tmp_path: Path) -> None:
    searched(Rivals, tmp_path, options={"max_steps": 128}, monitor="val_distance", direction="minimize")
    assert Finder(tmp_path).search.steps == 64  # Lightning counts the steps of both


class Stream(IterableDataset[Any]):
    """Digits one after the other; how many is not known."""

    def __iter__(self) -> Iterator[Any]:
        x, y = digits()
        yield from zip(x[:160], y[:160], strict=True)


class Skipping(Digits):
    """No loss for some mini-batches."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return None if batch_idx % 5 == 3 else super().training_step(batch, batch_idx)


@pytest.mark.parametrize("options", [{"max_steps": 40}, {"max_epochs": 4}])
def test_a_stream_of_unknown_length(tmp_path: Path, options: dict[str, Any]) -> None:
    advice = searched(Skipping, tmp_path, options=options, train_dataloaders=DataLoader(Stream(), batch_size=16))
    assert advice.high in LRS
    assert Finder(tmp_path).search.steps == 40


class Two(Digits):
    """Takes mini-batches of two loaders at a time."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch[0], batch_idx) + self.loss(batch[1])


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


class Counting(Callback):
    """Counts mini-batches."""

    count = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.count += 1


class Fragile(Digits):
    """Raises above an LR of one; brings callbacks that end trainings and write."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.lr > 1:
            raise FloatingPointError("this is too high")
        return super().training_step(batch, batch_idx)

    def configure_callbacks(self) -> list[Callback]:
        return [EarlyStopping("val_loss", patience=0, min_delta=1e9), ModelCheckpoint()]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def generator_states() -> list[Any]:
    legacy: Any = np.random.get_state()  # noqa: NPY002
    return [torch.get_rng_state().tolist(), random.getstate(), legacy[1].tolist()]


def test_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    counting, data, before = Counting(), Data(), generator_states()
    stopping = EarlyStopping("val_loss", patience=0, min_delta=1e9)
    callbacks = [counting, stopping, ModelCheckpoint(every_n_train_steps=1), LearningRateMonitor()]
    advice = searched(
        Fragile,
        tmp_path / "f",
        options={"callbacks": callbacks, "logger": True},
        lrs=[1e-4, 0.1, 10.0],
        datamodule=data,
        budget=1.5,
    )
    assert 0.01 < advised_lr(advice) < 10
    failed = advice.evidence.filter(advice.evidence["failure"].is_not_null())
    assert failed["lr"].unique().to_list() == [10.0]
    assert failed["failure"][0] == "FloatingPointError: this is too high"
    assert generator_states() == before
    assert not data.set_up
    assert (counting.count, stopping.best_score) == (0, torch.tensor(torch.inf))
    assert not list(elsewhere.iterdir())
    assert not list((tmp_path / "f").rglob("*.ckpt"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("combined", [False, True])
def test_loaders_and_their_generators_stay_as_they_are(tmp_path: Path, combined: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    loaders: Any = [loader(0, 160, shuffle=True, generator=generator), loader(0, 64, shuffle=True)]
    train = CombinedLoader(loaders, "max_size_cycle") if combined else loaders
    before = generator.get_state()
    searched(Two, tmp_path, train_dataloaders=train)
    assert torch.equal(generator.get_state(), before)
    assert loaders[0].generator is generator
    if isinstance(train, CombinedLoader):
        assert train.flattened == loaders


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
    data: dict[str, Any] = {"train_dataloaders": None, "val_dataloaders": None} if own else {"datamodule": Noise()}
    make = (lambda: Guessing(Noise())) if own else Guessing
    options = {"check_val_every_n_epoch": 1000}
    searched(make, tmp_path, options=options, steps=160, lrs=[0.03, 0.1], budget=0.8, monitor="accuracy", **data)
    results = Finder(tmp_path).results
    assert min(each.losses[-1] for each in results if each.losses) < 0.3  # known by heart
    # Of 32 samples that were never trained on, no more are right than by chance, but for four standard errors.
    assert all(each.value is not None and abs(each.value - 0.5) < 4 * (0.25 / 32) ** 0.5 for each in results)


def test_the_package_of_a_module() -> None:
    assert getattr(package_of(Digits()), "Trainer", None) is Trainer
    assert package_of(nn.Linear(1, 1)) is None
    other = pytest.importorskip("pytorch_lightning")
    assert package_of(type("Own", (other.LightningModule,), {})()) is other


class Without(Digits):
    """No optimizer."""

    def configure_optimizers(self) -> None:
        return None


def two_arguments(width: int, depth: int) -> LightningModule:
    """Neither can be an LR."""
    return Digits(dropout=0.1 * width * depth)


class Broken(Digits):
    """It has a mistake."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        raise ValueError("no such thing")


@pytest.mark.parametrize(
    ("module", "settings", "error", "said"),
    [
        (
            Digits,
            {"monitor": "val_accuracy"},
            SpecError,
            "Validation does not log val_accuracy, but val_loss: set monitor to one",
        ),
        (Digits, {"monitor": "speed"}, SpecError, "Is a lower or a higher speed better"),
        (Digits, {"options": {"devices": 2}}, TaskError, "a search trains on one device"),
        (Digits, {"options": {"precission": 16}}, SpecError, "precission"),
        (Digits, {"options": {"max_steps": -1}}, SpecError, "The length of a full training is unknown"),
        (
            Digits,
            {"options": {"max_steps": 8}, "steps": 64},
            SpecError,
            "steps is 64, but trainer_options has max_steps",
        ),
        (Digits, {"options": {"fast_dev_run": True}}, SpecError, "sets fast_dev_run"),
        (Digits, {"val_dataloaders": None}, TaskError, "There is no validation"),
        (Without, {}, TaskError, "no optimizer"),
        (Broken, {}, SearchError, "ValueError: no such thing"),
        (lambda: nn.Linear(2, 2), {}, TaskError, "returned a Linear; it must return a LightningModule"),
        (nn.Linear(2, 2), {}, TaskError, "The module is a Linear"),
        (two_arguments, {}, SpecError, "also needs depth"),
    ],
)
def test_what_cannot_be_searched_is_said(
    tmp_path: Path, module: Any, settings: dict[str, Any], error: type[LRAtlasError], said: str
) -> None:
    with pytest.raises(error, match=said):
        searched(module, tmp_path, **settings)


def test_a_search_is_resumed(tmp_path: Path) -> None:
    made = list[Fragile]()

    def make(lr: float) -> Fragile:
        made.append(Fragile(lr))
        return made[-1]

    first = searched(make, tmp_path)
    count = len(made)
    again = searched(make, tmp_path)
    assert again.lr == first.lr
    assert again.evidence.equals(first.evidence)
    assert len(made) == count + 1  # the one that is looked at first
