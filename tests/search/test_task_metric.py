"""The metric of a task, compared with scikit-learn's models that learn nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier, DummyRegressor
from torch import nn

import lratlas
from lratlas.search.find import metric_of


def a_task(train: tuple[Any, Any], validation: tuple[Any, Any], outputs: int = 3, **others: Any) -> lratlas.Task:
    given: dict[str, Any] = {
        "model": lambda: nn.Linear(2, outputs),
        "train": train,
        "validation": validation,
        "test": validation,
        "batch_size": 8,
    }
    return lratlas.Task(**(given | others))


def inputs(count: int) -> torch.Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (0.1, 0.1, 0.8), (0.34, 0.33, 0.33)])
def test_chance_of_classes_is_that_of_the_most_frequent_one(shares: tuple[float, ...]):
    rng = np.random.default_rng(0)
    learn, held = (rng.choice(3, size=count, p=shares) for count in (300, 100))
    task = a_task((inputs(300), torch.tensor(learn)), (inputs(100), torch.tensor(held)))
    dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros((300, 1)), learn)
    found = metric_of(task.prepared, None)
    assert found["chance"] == pytest.approx(dummy.score(np.zeros((100, 1)), held))
    assert (found["direction"], found["limit"], found["samples"]) == ("maximize", 1.0, 100)


def test_chance_of_two_labels_is_that_of_the_more_frequent_one():
    rng = np.random.default_rng(0)
    learn, held = (rng.random((count, 1)) < 0.3 for count in (300, 100))
    labels = [torch.tensor(of).float() for of in (learn, held)]
    task = a_task((inputs(300), labels[0]), (inputs(100), labels[1]), outputs=1, loss="binary_cross_entropy")
    dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros((300, 1)), learn[:, 0])
    found = metric_of(task.prepared, None)
    assert found["chance"] == pytest.approx(dummy.score(np.zeros((100, 1)), held[:, 0]))
    assert found["direction"] == "maximize"


def test_a_constant_error_is_that_of_the_mean():
    y = [torch.randn(count, 2, generator=torch.Generator().manual_seed(count)) * 3 + 5 for count in (300, 100)]
    task = a_task((inputs(300), y[0]), (inputs(100), y[1]), outputs=2, loss="mse")
    dummy = DummyRegressor().fit(np.zeros((300, 1)), y[0].numpy())
    error = np.mean((dummy.predict(np.zeros((100, 1))) - y[1].numpy()) ** 2)
    found = metric_of(task.prepared, None)
    assert found["chance"] == pytest.approx(float(error), rel=1e-5)
    assert found == {"direction": "minimize", "chance": found["chance"]}
