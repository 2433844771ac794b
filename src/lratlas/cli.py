"""The command line: parse, call the same functions as from Python, print."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from lratlas.errors import LRAtlasError, SpecError

if TYPE_CHECKING:
    from lratlas.atlas import Atlas
    from lratlas.study.execute import Progress as Done
    from lratlas.study.spec import Spec

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="See where large learning rates lead, for any PyTorch model, and choose the initial one.",
)

FolderOption = Annotated[Path, typer.Option("--folder", "-f", help="The study folder.")]
FolderArgument = Annotated[Path, typer.Argument(help="The study folder.", metavar="FOLDER")]
Workers = Annotated[
    int, typer.Option(help="Processes on this machine; by default one per core.", metavar="N")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    """Run the command line; bad input ends with one sentence and exit code 2."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except LRAtlasError as error:
        sys.stderr.write(f"lratlas: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write(
            "lratlas: interrupted; nothing computed is lost: `lratlas resume FOLDER` continues.\n"
        )
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.command()
def demo(
    workers: Workers = CORES,
    folder: FolderOption = Path("lratlas-demo"),
) -> None:
    """Run the paper's synthetic example and real digits, small, and say what came out."""
    from lratlas.study.presets import demo_presets

    for name, spec in demo_presets().items():
        _say(
            f"[bold]{name}[/bold]: {spec.pretrain.repeats} repeat(s), {len(spec.pretrain.lrs)} pre-training LRs"
        )
        _print_result(_study(spec, folder / name, workers), as_json=False)


@app.command()
def explore(
    spec: Annotated[Path, typer.Argument(help="The spec, a TOML file.", metavar="SPEC.toml")],
    folder: FolderOption,
    workers: Workers = CORES,
    as_json: Json = False,
) -> None:
    """Conduct the study that a spec describes; continues or extends what the folder holds."""
    from lratlas.study.spec import read_spec

    _print_result(_study(read_spec(spec), folder, workers), as_json=as_json)


@app.command()
def reproduce(
    preset: Annotated[str, typer.Argument(help="Which study: ticks or digits.", metavar="PRESET")],
    folder: FolderOption,
    repeats: Annotated[int | None, typer.Option(help="Repetitions.", metavar="N")] = None,
    workers: Workers = CORES,
    as_json: Json = False,
) -> None:
    """Conduct one of the studies that come with the package."""
    from lratlas.study.presets import preset as named

    _print_result(_study(named(preset, repeats=repeats), folder, workers), as_json=as_json)


@app.command()
def resume(folder: FolderArgument, workers: Workers = CORES, as_json: Json = False) -> None:
    """Continue an interrupted study; a finished one is left as it is."""
    from lratlas.atlas import resume as continued

    with _progress() as report:
        atlas = continued(folder, workers=_at_least_one(workers), report=report, notice=_notice)
    _print_result(atlas, as_json=as_json)


@app.command()
def status(folder: FolderArgument, as_json: Json = False) -> None:
    """How far a study is, and what it says so far."""
    from lratlas.atlas import load
    from lratlas.study.jobs import is_done

    atlas = load(folder)
    plan = atlas.plan
    jobs = [*plan.trainings, *plan.features, *plan.geometry] if plan else []
    done = [job for job in jobs if is_done(atlas.store, job)]
    state = "not planned yet" if not plan else "finished" if len(done) == len(jobs) else "unfinished"
    if as_json:
        _print_json({"state": state, "jobs": len(jobs), "done": len(done), **_result(atlas)})
        return
    _say(f"{atlas.spec.name} in {folder}: {state}, {len(done)} of {len(jobs)} jobs done")
    _print_result(atlas, as_json=False)


@app.command()
def show(
    folder: FolderArgument,
    table: Annotated[str, typer.Argument(help="Which table.", metavar="[TABLE]")] = "boundaries",
    form: Annotated[str, typer.Option("--format", help="table, csv or json.", metavar="FORMAT")] = "table",
) -> None:
    """Print a table of a study."""
    from lratlas.atlas import load

    if form not in {"table", "csv", "json"}:
        raise SpecError(f"There is no format {form!r}; choose table, csv or json.")
    frame = load(folder).table(table)
    if form == "csv":
        sys.stdout.write(frame.write_csv())
    elif form == "json":
        _print_json(frame.to_dicts())
    else:
        _print_table(frame)


@app.command()
def report(folder: FolderArgument) -> None:
    """Write the report and the figures anew, also while the study runs."""
    from lratlas.atlas import command_line, load

    _say(f"Report: {load(folder).write_report(command_line())}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine offers: versions, cores, device, compiler, measured matrix-product peak."""
    from lratlas.doctor import checkup

    facts = checkup()
    if as_json:
        _print_json(facts)
        return
    for name, value in facts.items():
        _say(f"{name:>20}  {value}")


def _study(spec: "Spec", folder: Path, workers: int) -> "Atlas":
    _at_least_one(workers)
    from lratlas.study.conduct import open_study

    open_study(folder, spec)  # the spec is safe before anything heavy is imported
    from lratlas.atlas import command_line
    from lratlas.atlas import explore as conducted

    with _progress() as report:
        return conducted(
            spec, folder=folder, workers=workers, report=report, notice=_notice, command=command_line()
        )


def _at_least_one(workers: int) -> int:
    if workers < 1:
        raise SpecError(f"--workers is {workers}; it must be at least 1.")
    return workers


def _result(atlas: "Atlas") -> dict[str, object]:
    return {
        "folder": atlas.folder,
        "boundaries": atlas.boundaries.to_dicts(),
        "regimes": atlas.regimes.to_dicts(),
        "summary": atlas.summary(),
    }


def _print_result(atlas: "Atlas", *, as_json: bool) -> None:
    if as_json:
        _print_json(_result(atlas))
        return
    if len(atlas.boundaries):
        _print_table(atlas.boundaries)
    for sentence in atlas.summary():
        _say(f"• {sentence}")
    if atlas.store.exists("report.html"):
        _say(f"Report: {atlas.folder}/report.html")


def _print_table(frame: object) -> None:
    import polars as pl

    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=2000,
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        fmt_str_lengths=40,
        tbl_formatting="ASCII_MARKDOWN",
    ):
        sys.stdout.write(f"{frame}\n")


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=1, allow_nan=False) + "\n")


def _say(text: str) -> None:
    from rich.console import Console

    Console(highlight=False, soft_wrap=True).print(text)


def _notice(text: str) -> None:
    sys.stderr.write(f"lratlas: {text}\n")


@contextmanager
def _progress() -> "Iterator[Callable[[Done], None]]":
    """A progress bar with rate and time left; nothing where the output is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        line = bar.add_task("planning", total=None, rate="")

        def told(progress: "Done") -> None:
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(
                line,
                description=f"{progress.doing or 'finishing'} (job {progress.jobs_done + 1} of {progress.jobs})",
                total=progress.work,
                completed=progress.work_done,
                rate=f"{speed:,.0f} steps/s" if speed else "",
            )

        yield told


def _terminated(_signal: int, _frame: object) -> NoReturn:
    # An exit like any other: worker processes are ended on the way out.
    sys.stderr.write("lratlas: terminated; nothing computed is lost: `lratlas resume FOLDER` continues.\n")
    sys.exit(143)


if __name__ == "__main__":
    main()
