"""The options that commands share, and the parsers of their values."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import typer

from lratlas.devices import cores
from lratlas.errors import SpecError, meant
from lratlas.paths import expand_home
from lratlas.text import join_words

SCHEDULES = ("constant", "linear", "cosine")
CORES = cores()


def count_workers(given: str | int, *, least: int = 0) -> int:
    """The number of workers, parsed by `count`."""
    from lratlas.config.values import MOST_WORKERS  # imports pydantic, which help texts do not need

    return count("--workers", given, least=least, most=MOST_WORKERS)


def _repeats(given: str | int) -> int:
    return count("--repeats", given)


def count(option: str, given: str | int, *, least: int = 1, most: int | None = None) -> int:
    """A whole number from ``least`` (by default 1) to ``most``.

    Raises:
        SpecError: The value is not such a number.
    """
    # Typer's message would not name the value.
    text = str(given).strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) >= least):
        raise SpecError(f"{option} is {text!r}, but must be a whole number of at least {least}.")
    if most is not None and int(text) > most:
        raise SpecError(f"{option} is {text}, but at most {most:,} are allowed; this machine has {CORES} cores.")
    return int(text)


def _share(given: str | float) -> float:
    try:
        share = float(given)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise SpecError(f"--scale is {str(given)!r}, but must be a number above 0 and at most 1.")
    return share


def choose(option: str, given: str, allowed: Sequence[str]) -> str:
    """One of the allowed words of an option.

    Raises:
        SpecError: The word is not allowed.
    """
    if given not in allowed:
        raise SpecError(f"{option} is {given!r}{meant(given, allowed)}; choose {join_words(allowed, 'or')}.")
    return given


def _format(given: str) -> str:
    return choose("--format", given, ("table", "csv", "json"))


# Text, since a path would merge the two slashes of s3://bucket.
FolderOption = Annotated[
    str | None,
    typer.Option(
        "--folder",
        "-f",
        help="The study folder, or its URL; by default lratlas-NAME, with the name of the spec or preset.",
        metavar="FOLDER",
    ),
]
DemoFolder = Annotated[
    str, typer.Option("--folder", "-f", help="The folder of both studies, or its URL.", metavar="FOLDER")
]
FolderArgument = Annotated[str, typer.Argument(help="The study folder, or its URL.", metavar="FOLDER")]
Workers = Annotated[
    int | None,
    typer.Option(
        help=(
            "The number of worker processes; by default one per core or visible GPU of this machine, or as many as"
            " fit on the cluster. 0 runs jobs in this process, for debuggers and profilers."
        ),
        metavar="N",
        parser=count_workers,
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(help="Run on a Ray cluster: auto, or its address.", metavar="ADDRESS"),
]
GpuShare = Annotated[
    float,
    typer.Option(help="The share of a GPU for each process on a cluster.", metavar="SHARE"),
]


def look_for_data(root: str | None) -> None:
    """Search for data sets under ``root``, also in worker processes, which inherit the setting."""
    if root is not None:
        os.environ["LRATLAS_DATA"] = str(expand_home(root))


def worker_options(workers: int | None, cluster: str | None, gpu_share: float = 1.0) -> dict[str, Any]:
    """The worker arguments of `lratlas.explore`."""
    return {"workers": workers, "cluster": cluster, "gpu_share": gpu_share}


ResumeDevice = Annotated[
    str | None,
    typer.Option(
        "--device", help="Continue on this device, recorded in the study; by default the last one.", metavar="DEVICE"
    ),
]
Repeats = Annotated[
    int | None,
    typer.Option(help="The number of repetitions; by default that of the preset.", metavar="N", parser=_repeats),
]
Width = Annotated[int | None, typer.Option(help="Width of the model.", metavar="N", parser=partial(count, "--width"))]
Images = Annotated[
    int | None, typer.Option(help="Training images, stratified.", metavar="N", parser=partial(count, "--images"))
]
TestImages = Annotated[
    int | None, typer.Option(help="Test images, stratified.", metavar="N", parser=partial(count, "--test-images"))
]
Epochs = Annotated[
    int | None, typer.Option(help="Epochs of pre-training.", metavar="N", parser=partial(count, "--epochs"))
]
FinetuneEpochs = Annotated[
    int | None,
    typer.Option(help="Epochs of fine-tuning.", metavar="N", parser=partial(count, "--finetune-epochs")),
]
Scale = Annotated[
    float | None,
    typer.Option(
        help="The share of the preset's width, images and epochs to use (image studies only).",
        metavar="SHARE",
        parser=_share,
    ),
]
Measure = Annotated[
    list[str] | None,
    typer.Option(
        help="A measurement to add: a switch of [measure], or a custom module:name; can be repeated.", metavar="NAME"
    ),
]
DataRoot = Annotated[
    str | None,
    typer.Option(
        help="The folder of data sets; by default LRATLAS_DATA, else ~/.local/share/lratlas.", metavar="FOLDER"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Format = Annotated[str, typer.Option("--format", help="table, csv or json.", metavar="FORMAT", parser=_format)]
