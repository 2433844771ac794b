"""What the validation metric of a task is: which way is better, its limits, and what learning nothing gives."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch

from lratlas.data.parts import count, leaves
from lratlas.errors import SpecError
from lratlas.training.objective import counted
from lratlas.training.prepared import Prepared


@dataclass(frozen=True, kw_only=True)
class TaskMetric:
    """Settings of a search that follow from its task; see `lratlas.search.settings.Search`."""

    direction: Literal["minimize", "maximize"]
    limit: float | None = None
    chance: float | None = None
    samples: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Those that are known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


Metric = Literal["accuracy", "loss"]


def metric_of(task: Prepared, metric: str | None) -> TaskMetric:
    """The metric of a task with a validation set: its accuracy or the user's metric where there is one, else its loss.

    Raises:
        SpecError: The metric is another word, or an accuracy is asked for where there is none.
    """
    objective, (_, held) = task.objective, task.validation or task.train
    if metric not in {None, *get_args(Metric)}:
        raise SpecError(f"metric is {metric!r}; choose accuracy or loss.")
    if metric == "accuracy" and not objective.has_accuracy:
        raise SpecError("metric is 'accuracy', but the task has no labels; choose 'loss'.")
    if metric != "loss" and objective.labels in {"classes", "binary"}:
        share = _chance_accuracy(task)
        return TaskMetric(direction="maximize", limit=1.0, chance=share, samples=count(held))
    if metric != "loss" and objective.has_accuracy:
        return TaskMetric(direction="maximize")
    return TaskMetric(direction="minimize", chance=_constant_error(task) if objective.name == "mse" else None)


def _chance_accuracy(task: Prepared) -> float | None:
    """The validation accuracy of the constant prediction that is best on the training set."""
    learn, held = (leaves(pair[1]) for pair in (task.train, task.validation or task.train))
    if len(learn) != 1:
        return None
    if task.objective.labels == "binary":
        likely = (learn[0] > 0.5).double().mean(0) > 0.5
        return float(((held[0] > 0.5) == likely).double().mean())
    labels, others = (part[counted(part, task.objective.ignored)].long() for part in (learn[0], held[0]))
    if not len(labels) or not len(others):
        return None
    return float((others == torch.bincount(labels.flatten()).argmax()).double().mean())


def _constant_error(task: Prepared) -> float:
    """The mean squared error on the validation set of the mean of the training targets."""
    (learn,), (held,) = leaves(task.train[1]), leaves((task.validation or task.train)[1])
    return float((held.double() - learn.double().mean(0)).square().mean())
