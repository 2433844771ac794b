"""The image frequencies that a model relies on: its accuracy on single Fourier bands (Figs. 6, 7, 9, 18, 25)."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

from lratlas.config.values import Bands
from lratlas.data.band_ranges import Band, bands_of, default_bands
from lratlas.errors import SpecError
from lratlas.measure.base import Columns, Figure, Measurement, Models, Needs, Option, Options, Wanted
from lratlas.study.jobs import Measuring, identity

if TYPE_CHECKING:
    from torch import Tensor

    from lratlas.training.prepared import Prepared
    from lratlas.training.program import Program
    from lratlas.training.sphere import Weights
    from lratlas.training.state import Samples


def band_accuracies(
    program: "Program", weights: "Weights", buffers: "Weights", samples: "Samples", bands: Sequence[Band], *, kept: bool
) -> "Tensor":
    """Accuracy on the samples' images with only one band, or with all but one, float64 [bands, seeds, lanes].

    The transformed images are filtered: if they are normalised, the data set's mean is only in band 0.

    Args:
        program: The stack's program.
        weights: Trained parameters, [seeds, lanes, *parameter].
        buffers: Buffers, likewise.
        samples: Images [data sets, n, C, H, W].
        bands: The bands.
        kept: True to keep each band, False to remove it.
    """
    import torch

    from lratlas.training.evaluate import evaluate_stack

    return torch.stack(
        [
            evaluate_stack(
                program,
                weights,
                buffers,
                replace(samples, transform=partial(_filter_images, samples.transform, band, kept)),
            ).accuracy
            for band in bands
        ]
    )


def _filter_images(
    transform: "Callable[[Tensor], Tensor] | None", band: Band, kept: bool, images: "Tensor"
) -> "Tensor":
    from lratlas.data.bands import keep_band

    return keep_band(transform(images) if transform else images, band.low, band.high, kept=kept)


def _measure(models: Models, options: Options) -> Iterator[Columns]:
    bands, test = [Band(*band) for band in options["bands"]], models.setting().test
    for kept in (True, False):
        accuracies = band_accuracies(models.program(), models.weights, models.buffers, test, bands, kept=kept)
        for band, accuracy in zip(bands, accuracies, strict=True):
            yield {"low": band.low, "high": band.high, "kept": kept, "accuracy": accuracy.flatten().tolist()}


def _settle(options: Options, task: "Prepared") -> Options | None:
    """The bands to measure: none if the inputs are not images, or the task has no accuracy.

    Raises:
        SpecError: The spec names bands that do not exist or cannot be measured.
    """
    import torch

    from lratlas.data.parts import leaves, rows

    shown = task.inputs(rows(task.train[0], slice(1)))
    images = isinstance(shown, torch.Tensor) and shown.dim() == 4 and shown.is_floating_point()
    size = leaves(shown)[0].shape[2:]
    wanted, scored = options["bands"], task.objective.has_accuracy
    if isinstance(wanted, bool):
        possible = wanted and images and scored
        return {"bands": tuple((band.low, band.high) for band in default_bands(*size))} if possible else None
    if not scored:
        raise SpecError("`measure.bands` names bands, but the task has no accuracy to measure on them.")
    if not images:
        raise SpecError("`measure.bands` names bands, but the task's inputs are not images [n, C, H, W].")
    highest = bands_of(size)
    top = max(high for _, high in wanted)
    if top > highest:
        shape = " x ".join(map(str, size))
        raise SpecError(f"`measure.bands` goes up to {top}, but images of {shape} have the bands 0 to {highest}.")
    return {"bands": wanted}


def bands_of_job(job: Measuring) -> tuple[tuple[int, int], ...]:
    """The bands of a measuring job."""
    return cast("tuple[tuple[int, int], ...]", job.options["bands"])


def _jobs(wanted: Wanted) -> Iterator[Measuring]:
    """The jobs of the study, and for each training job a new job for its missing bands."""
    known = defaultdict[str | None, set[tuple[int, int]]](set)
    for job in wanted.old:
        known[job.training].update(bands_of_job(job))
        yield job
    for training in wanted.trainings:
        missing = tuple(band for band in wanted.options["bands"] if band not in known[training.id])
        if missing:
            name = f"bands-{identity(training.id, missing)}"
            yield Measuring(id=name, measurement="bands", training=training.id, options={"bands": missing})


_CHART = Figure(
    name="bands",
    draw="lratlas.report.charts.learned:bands_chart",
    data="lratlas.report.charts.learned:bands_data",
)

BANDS = Measurement(
    name="bands",
    columns={"low": "Int64", "high": "Int64", "kept": "Boolean", "accuracy": "Float64"},
    function=_measure,
    needs=Needs(
        stacked=True,
        order=("seed", "plr", "stage", "flr", "count", "low", "high", "kept"),
        words="accuracy on Fourier bands of the test images",
        options={
            "bands": Option(
                kind=Bands,
                default=True,
                description="accuracies on images with only a Fourier band, and without it: true, false, or a list of"
                " [low, high]",
            )
        },
        settle=_settle,
        jobs=_jobs,
        figures=(_CHART,),
    ),
)
