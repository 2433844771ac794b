"""Custom measurements: run them on one trained model after another, and check their results."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import polars as pl
import torch
from torch import nn

from lratlas.data.parts import Parts, rows
from lratlas.errors import MeasurementError, first_line
from lratlas.measure.base import Columns, Measurement, Models, Options
from lratlas.measure.hessian import seed_samples
from lratlas.rng import seed_generators, torch_seed
from lratlas.stacks.tensors import StackData
from lratlas.text import to_python
from lratlas.training.placing import copy_to
from lratlas.training.state import Samples

_PYTHON: Mapping[str, tuple[type, ...]] = {
    "Float64": (float, int),
    "Int64": (int,),
    "String": (str,),
    "Boolean": (bool,),
}


@dataclass(frozen=True)
class Data:
    """The data of a trained model in the model's format: transformed, in its number format and on its device.

    Attributes:
        setting: The data of the stack in which the model was trained.
        at: The place of the model's seed in the stack.
    """

    setting: StackData
    at: int

    @cached_property
    def train(self) -> tuple[Parts, Parts]:
        """Inputs [n, ...] and targets [n, ...] of the whole training set, without augmentation."""
        return self._pair(self.setting.train)

    @cached_property
    def test(self) -> tuple[Parts, Parts]:
        """Inputs [n, ...] and targets [n, ...] of the whole test set."""
        return self._pair(self.setting.test)

    def _pair(self, samples: Samples) -> tuple[Parts, Parts]:
        every = torch.arange(samples.count, device=samples.which.device)
        x, y = seed_samples(samples, self.at).take_samples(every[None])
        return rows(x, 0), rows(y, 0)


def measure_each(measurement: Measurement, models: Models, _options: Options) -> Iterator[Columns]:
    """The columns of a custom measurement: for each model a list with an entry per returned row.

    Raises:
        MeasurementError: The measurement failed, or did not return its columns.
    """
    found: list[list[dict[str, Any]]] = []
    for at, seed in enumerate(models.seeds):
        data = Data(models.setting(), at)
        for lane in range(models.lanes):
            run = models.runs[at][lane]
            model = _load_model(models, at, lane)
            try:
                with seed_generators(torch_seed(seed, measurement.name)):
                    returned = measurement.function(model, data)
            except Exception as error:
                reason = f"{type(error).__name__}: {first_line(error)}"
                raise MeasurementError(f"Measurement {measurement.name} failed on run {run}: {reason}") from error
            found.append(_rows(measurement, run, returned))
    yield {
        name: pl.Series([[row[name] for row in each] for each in found], dtype=pl.List(measurement.schema[name]))
        for name in measurement.columns
    }


def _load_model(models: Models, at: int, lane: int) -> nn.Module:
    """A trained model of a stack as a separate module, in eval mode."""
    weights, buffers = models.one(at, lane)
    lead = next(iter(weights.values()))
    model = copy_to(models.fresh(at), "model", lead.device, lead.dtype).eval()
    model.load_state_dict({**model.state_dict(), **weights, **buffers})
    return model


def _rows(measurement: Measurement, run: str, returned: object) -> list[dict[str, Any]]:
    """The result of a measurement, as rows with Python values.

    Raises:
        MeasurementError: The result is not rows with a value for each column.
    """

    def wrong(what: str) -> MeasurementError:
        return MeasurementError(f"Measurement {measurement.name} on run {run} {what}.")

    given = [returned] if isinstance(returned, Mapping) else returned
    rows = cast("Sequence[object]", given if isinstance(given, Sequence) and not isinstance(given, str) else ())
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        kind = "no row" if isinstance(given, Sequence) and not rows else type(returned).__name__
        raise wrong(f"returned {kind}; it must return a mapping from columns to values, or a sequence of such mappings")
    found = [to_python(dict(cast("Mapping[str, object]", row))) for row in rows]
    for row in found:
        if row.keys() != measurement.columns.keys():
            names = ", ".join(map(str, row)) or "none"
            raise wrong(f"returned the columns {names}; they must be {', '.join(measurement.columns)}")
        for name, kind in measurement.columns.items():
            value = row[name]
            if value is not None and not _fits(value, _PYTHON[kind]):
                raise wrong(f"returned {value!r} in the column {name}, which has the type {kind}")
            if type(value) is int and kind == "Float64":
                row[name] = float(value)
    return found


def _fits(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and isinstance(value, bool) == (bool in kinds)
