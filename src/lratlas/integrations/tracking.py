"""Log the looks of a watch, and the evidence of a search, to experiment trackers."""

from typing import TYPE_CHECKING

from lratlas.errors import extra
from lratlas.monitor.rules import Regime
from lratlas.monitor.tracker import Look
from lratlas.search.advice import Advice
from lratlas.tables import csv_text
from lratlas.text import is_finite

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter
    from trackio.run import Run

__all__ = ["evidence_of", "log_to_mlflow", "log_to_tensorboard", "log_to_trackio", "numbers_of"]

REGIME_NUMBERS: dict[Regime, int] = {"undecided": 0, "converging": 1, "equilibrium": 2, "diverging": 3}

_OF_LOOKS = ("loss", "accuracy", "fall", "lr", "gradient_norm")
_OF_SLICES = ("value", "averaged")


def numbers_of(look: Look, *, prefix: str = "watch") -> dict[str, float]:
    """Numbers of a look under names such as ``watch/loss``, without unknown ones and those that are not finite.

    The regime is 0 (undecided), 1 (converging), 2 (equilibrium) or 3 (diverging).
    """
    values: dict[str, float | None] = {name: getattr(look, name) for name in _OF_LOOKS}
    return {f"{prefix}/regime": float(REGIME_NUMBERS[look.regime]), **_known_values(values, prefix)}


def evidence_of(advice: Advice, *, prefix: str = "find") -> dict[int, dict[str, float]]:
    """Evidence of a search as numbers by trained steps, ascending.

    Each trial is a series over its steps, such as ``find/averaged/lr0.1-seed0``: the validation metric of its averaged
    weights. The recommended LR and the ends of the good range are at the last step of a full training, as ``find/lr``,
    ``find/low`` and ``find/high``.
    """
    records = dict[int, dict[str, float]]()
    for row in advice.evidence.sort("steps").iter_rows(named=True):
        trial = f"lr{row['lr']:.6g}-seed{row['seed']}{'-annealed' if row['annealed'] else ''}"
        values: dict[str, float | None] = {f"{name}/{trial}": row[name] for name in _OF_SLICES}
        records.setdefault(row["steps"], {}).update(_known_values(values, prefix))
    found = {"lr": advice.lr, "low": advice.low, "high": advice.high}
    records.setdefault(advice.steps, {}).update(_known_values(found, prefix))
    return dict(sorted(records.items()))


def log_to_tensorboard(writer: "SummaryWriter", found: Look | Advice) -> None:
    """Write a look or an advice to TensorBoard: numbers at their steps, and the statement of the advice as text.

    Example:
        >>> watch = lratlas.watch(optimizer, on_change=partial(log_to_tensorboard, writer))  # doctest: +SKIP
        >>> for look in watch.log:  # all of them, at the end instead  # doctest: +SKIP
        ...     log_to_tensorboard(writer, look)
    """
    for step, numbers in _records(found).items():
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)
    if isinstance(found, Advice):
        writer.add_text("find/advice", str(found))


def log_to_mlflow(found: Look | Advice) -> None:
    """Log a look or an advice to MLflow's active run; ``on_change=log_to_mlflow`` logs each change of regime.

    MLflow starts a run if none is active. The statement of the advice and its whole evidence become the artifacts
    ``find/advice.txt`` and ``find/evidence.csv``.
    """
    with extra("mlflow"):
        import mlflow

    for step, numbers in _records(found).items():
        mlflow.log_metrics(numbers, step=step)
    if isinstance(found, Advice):
        mlflow.log_text(str(found), "find/advice.txt")
        mlflow.log_text(csv_text(found.evidence), "find/evidence.csv")


def log_to_trackio(found: Look | Advice, *, run: "Run | None" = None) -> None:
    """Log a look or an advice to trackio; ``on_change=log_to_trackio`` logs each change of regime.

    Args:
        found: The look or advice to log.
        run: Return value of ``trackio.init``; if None, the current run.
    """
    with extra("trackio"):
        import trackio

    log = trackio.log if run is None else run.log
    for step, numbers in _records(found).items():
        log(dict(numbers), step=step)


def _records(found: Look | Advice) -> dict[int, dict[str, float]]:
    return evidence_of(found) if isinstance(found, Advice) else {found.step: numbers_of(found)}


def _known_values(values: dict[str, float | None] | dict[str, float], prefix: str) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items() if value is not None and is_finite(value)}
