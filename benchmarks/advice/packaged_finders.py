"""The LR finders of the packages torch-lr-finder and Lightning, run on a problem.

Both start at the LR their manuals start at and keep their other defaults: 100 steps, the LR growing exponentially,
without warm-up. Where one has no suggestion, the customary LR stays.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Generator
from typing import cast

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.tuner.tuning import Tuner
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from benchmarks.advice.choices import Choice
from benchmarks.advice.problem import Pair, Problem, batches

STEPS = 100
_LOW = 1e-7  # of torch-lr-finder's README
_SKIPPED = slice(10, -1)  # what Lightning's suggestion leaves out


class Module(LightningModule):
    """A problem's training as Lightning wants it."""

    def __init__(self, problem: Problem, seed: int) -> None:
        super().__init__()
        self.problem = problem
        self.model = problem.make_model(seed)
        self.lr = problem.default_lr

    def training_step(self, batch: Pair) -> Tensor:
        x, y = batch
        return self.problem.losses(self.model(x), y).mean()

    def configure_optimizers(self) -> Optimizer:
        return self.problem.make_optimizer(list(self.model.parameters()), self.lr)


def torch_lr_finder_choices(problem: Problem, seed: int) -> list[Choice]:
    """What torch-lr-finder suggests in its plot: the steepest point of its curve."""
    model = problem.make_model(seed)
    optimizer = problem.make_optimizer(list(model.parameters()), _LOW)

    def mean_loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return problem.losses(outputs, targets).mean()

    with _quiet():
        from torch_lr_finder import LRFinder

        finder = LRFinder(model, optimizer, mean_loss, device="cpu")
        finder.range_test(_loader(problem, seed), num_iter=STEPS)
        lr = problem.default_lr
        # It refuses to suggest one after a test that ended too early.
        with contextlib.suppress(RuntimeError):
            lr = cast("tuple[object, float]", finder.plot(ax=Figure().subplots()))[1]
    cost = len(finder.history["loss"]) / problem.steps
    return [Choice(method="torch-lr-finder", problem=problem.name, seed=seed, lr=float(lr), cost=cost)]


def lightning_choices(problem: Problem, seed: int) -> list[Choice]:
    """What Lightning's finder would suggest if it took the slope over the LR's logarithm.

    As released it takes the slope over the LR itself, which on LRs that grow exponentially is steepest near the low
    end (https://github.com/Lightning-AI/pytorch-lightning/pull/21171); that suggestion is far too small on most
    problems.
    """
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        finder = Tuner(trainer).lr_find(Module(problem, seed), train_dataloaders=_loader(problem, seed))
    assert finder is not None  # only a trial run of the trainer has none
    lrs, losses = np.array(finder.results["lr"]), np.array(finder.results["loss"])
    lr = steepest(lrs, losses)
    return [
        Choice(
            method="Lightning, slope over log LR",
            problem=problem.name,
            seed=seed,
            lr=problem.default_lr if lr is None else lr,
            cost=len(losses) / problem.steps,
        )
    ]


def steepest(lrs: NDArray[np.float64], losses: NDArray[np.float64]) -> float | None:
    """The LR at which the loss falls most per logarithm of the LR, among those that Lightning looks at."""
    lrs, losses = lrs[_SKIPPED], losses[_SKIPPED]
    lrs, losses = lrs[np.isfinite(losses)], losses[np.isfinite(losses)]
    return float(lrs[np.gradient(losses, np.log(lrs)).argmin()]) if len(lrs) > 1 else None


def _loader(problem: Problem, seed: int) -> DataLoader[Pair]:
    """The first batches of a training, as they are."""
    first = list(batches(problem, seed=seed, start=0, stop=STEPS))
    return DataLoader(first, batch_size=None)  # pyright: ignore[reportArgumentType] - a list is data enough


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Without what the packages print, draw and warn of; PyTorch's generator stays as it was."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    nowhere = io.StringIO()
    try:
        with (
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
