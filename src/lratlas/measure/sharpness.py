"""The sharpness of the training loss at a model: the top eigenvalue and the trace of its Hessian (Fig. 26)."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from lratlas.errors import SpecError
from lratlas.measure.base import Columns, Figure, Measurement, Models, Needs, Option, Options, Wanted
from lratlas.study.jobs import Measuring, identity

if TYPE_CHECKING:
    from lratlas.training.prepared import Prepared

_FEWEST = 2  # samples for the statistics of a batch
_SAMPLES = "sharpness_samples"


def _measure(models: Models, options: Options) -> Iterator[Columns]:
    from lratlas.measure.curvature import sharpness_measure
    from lratlas.measure.hessian import seed_samples
    from lratlas.training.evaluate import evaluate_stack
    from lratlas.training.placing import copy_to
    from lratlas.training.prepared import make_model

    task, setting = models.task, models.setting()
    own = [seed_samples(setting.train, at) for at in range(len(models.seeds))]
    model = copy_to(make_model(task, 0), "model", setting.train.which.device)
    curvature = sharpness_measure(
        model, task.objective, task.update, batch_size=task.samples_per_step, limit=options[_SAMPLES]
    )
    error = 1 - evaluate_stack(models.program(), models.weights, models.buffers, setting.test).accuracy
    each = [
        asdict(curvature(*models.one(at, lane), own[at], seed))
        for at, seed in enumerate(models.seeds)
        for lane in range(models.lanes)
    ]
    yield {name: [row[name] for row in each] for name in each[0]} | {"test_error": error.flatten().tolist()}


def _settle(options: Options, task: "Prepared") -> Options | None:
    """The number of samples for measuring sharpness.

    Raises:
        SpecError: The mini-batches of these samples are too small for batch norm.
    """
    from lratlas.training.batch_norm import norm_names
    from lratlas.training.prepared import make_model

    if not options["sharpness"]:
        return None
    taken = min(options[_SAMPLES], task.samples)
    smallest = taken // -(-taken // task.samples_per_step)
    if norm_names(make_model(task, 0)) and smallest < _FEWEST:
        raise SpecError(
            f"`measure.sharpness_samples` is {options[_SAMPLES]}, which makes mini-batches of {smallest};"
            f" batch norm needs at least {_FEWEST} samples in each."
        )
    return {_SAMPLES: options[_SAMPLES]}


def _jobs(wanted: Wanted) -> Iterator[Measuring]:
    for job in wanted.trainings:
        name = f"sharpness-{identity(job.id, wanted.options[_SAMPLES])}"
        yield Measuring(id=name, measurement="sharpness", training=job.id, options=dict(wanted.options))


_CHART = Figure(
    name="sharpness",
    draw="lratlas.report.charts.minima:sharpness_chart",
    data="lratlas.report.charts.minima:sharpness_data",
)

SHARPNESS = Measurement(
    name="sharpness",
    columns={
        "top_eigenvalue": "Float64",
        "residual": "Float64",  # of the eigenpair, relative to the eigenvalue
        "converged": "Boolean",
        "trace": "Float64",
        "trace_error": "Float64",  # standard error over probes
        "fisher_trace": "Float64",
        "gradient_norm": "Float64",  # mean over mini-batches
        "train_loss": "Float64",  # of the samples behind the curvature
        "test_error": "Float64",
    },
    function=_measure,
    needs=Needs(
        stacked=True,
        words="curvature of the training loss at the end of each run",
        options={
            "sharpness": Option(default=False, description="top eigenvalue and trace of the Hessian, Fisher trace"),
            _SAMPLES: Option(
                kind=int,
                default=2048,
                description="number of training samples for sharpness, drawn at random",
                least=1,
                free=True,
            ),
        },
        settle=_settle,
        jobs=_jobs,
        replaces=True,
        figures=(_CHART,),
    ),
)
