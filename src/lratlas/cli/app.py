"""The command line: parse, call the same functions as from Python, print."""

import io
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from lratlas.cli.commands import Command, Group
from lratlas.cli.data import app as data_app
from lratlas.cli.find import find
from lratlas.cli.options import (
    Cluster,
    DataRoot,
    DemoFolder,
    Epochs,
    FinetuneEpochs,
    FolderArgument,
    FolderOption,
    Format,
    GpuShare,
    Images,
    Json,
    Measure,
    Repeats,
    ResumeDevice,
    Scale,
    TestImages,
    Width,
    Workers,
    look_for_data,
    worker_options,
)
from lratlas.cli.reading import compare, serve, verify
from lratlas.cli.terminal import print_csv, print_json, print_table, say
from lratlas.cli.watch import watch
from lratlas.config.preset_names import PRESETS
from lratlas.errors import JobsFailed, LRAtlasError, SpecError, first_line
from lratlas.notices import forward_warnings
from lratlas.notices import show_notice as notice
from lratlas.startup import enforce_deadline, reset_process

if TYPE_CHECKING:
    from lratlas.atlas import Atlas
    from lratlas.config.sections import Spec


INTERRUPTED, TERMINATED = 130, 143  # the exit codes after Ctrl-C and after SIGTERM
_CONTINUED = frozenset({"demo", "explore", "find", "reproduce", "resume"})
"""The commands that store results during the run and resume from them."""


app = typer.Typer(
    cls=Group,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def main() -> None:
    """Run the command line; bad input leads to one sentence and exit code 2."""
    reset_process()
    announced = threading.Event()
    words = list(sys.argv[1:])  # a copy, since a running script replaces it

    def raise_terminated(_signal: int, _frame: object) -> NoReturn:
        # A regular exit, so that worker processes are ended too.
        notice(_ended_message("terminated", words))
        announced.set()
        sys.exit(TERMINATED)

    def end_at_once() -> NoReturn:
        if not announced.is_set():
            notice(_ended_message("terminated", words))
        os._exit(TERMINATED)  # worker processes end after their parent

    signal.signal(signal.SIGTERM, raise_terminated)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal supports every character
    try:
        with forward_warnings(notice), enforce_deadline(signal.SIGTERM, end_at_once):
            code = app(prog_name="lratlas", standalone_mode=False) or 0
        sys.stdout.flush()
    except LRAtlasError as error:
        notice(str(error), style="red")
        code = 2
    except typer.TyperException as error:
        notice(_usage(error), style="red")
        code = 2
    except SystemExit:
        # While Ray waits, it replaces this SystemExit with another one.
        if not announced.is_set():
            raise
        code = TERMINATED
    except MemoryError as error:
        notice(f"Out of memory: {first_line(error)}", style="red")
        code = 2
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except BaseException as error:  # includes a panic of Polars, which is not an Exception
        if announced.is_set():  # libraries may raise other errors in response to the signal
            sys.exit(TERMINATED)
        notice(f"{type(error).__name__}: {first_line(error).rstrip('.')}; {_log_error(error)}", style="red")
        code = 2
    if code == INTERRUPTED:
        signal.signal(signal.SIGINT, _exit)  # for a second Ctrl-C during shutdown
        notice(_ended_message("interrupted", words))
    sys.exit(code)


def _log_error(error: BaseException) -> str:
    """Write the traceback of an unexpected error to a file; returns a clause that names the file."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="lratlas-", suffix=".log", encoding="utf-8", delete=False) as file:
            file.write(f"{shlex.join(sys.argv)}\n{''.join(traceback.format_exception(error))}")
    except OSError as reason:
        return f"the traceback could not be saved ({reason.strerror})"
    return f"the traceback is in {file.name}"


def _exit(_signal: int, _frame: object) -> NoReturn:
    os._exit(INTERRUPTED)


def _ended_message(how: str, words: Sequence[str]) -> str:
    """The message of a command that was interrupted or terminated."""
    command = next((word for word in words if not word.startswith("-")), "")
    return f"{how}; no result is lost: run the same command again to resume." if command in _CONTINUED else f"{how}."


def _usage(error: typer.TyperException) -> str:
    """The usage error of a command, in one sentence."""
    text = re.sub(r"\.? Did you mean (.+)\?$", r" (did you mean \1?)", error.format_message()).rstrip(".")
    text = re.sub(r"\(Possible options: (.+)\)$", lambda found: f"(did you mean {_any_of(found[1])}?)", text)
    context: typer.Context | None = getattr(error, "ctx", None)
    if context and context.command.name == "find" and "--script" in sys.argv and "--" not in sys.argv:
        text = re.sub(r" \(.*\)$", "", text) + "; put the script's arguments after --"
    return f"{text}; `{context.command_path if context else 'lratlas'} --help` shows what is allowed."


def _any_of(names: str) -> str:
    return " or ".join(names.split(", "))


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Map what every learning rate does to your PyTorch model, and pick the one to start with."""
    if version:
        from importlib.metadata import version as version_of

        say(f"lratlas {version_of('lratlas')}")
    elif context.invoked_subcommand is None:
        sys.stdout.write(context.get_help())


def demo(
    workers: Workers = None,
    folder: DemoFolder = "lratlas-demo",
) -> None:
    """Run two small studies, of synthetic ticks and of digits with noisy labels."""
    from lratlas.config.presets import demo_presets

    for name, spec in demo_presets().items():
        repeats = "1 repeat" if spec.pretrain.repeats == 1 else f"{spec.pretrain.repeats} repeats"
        say((f"{spec.name}: {repeats}, {len(spec.pretrain.lrs)} pre-training LRs", "bold"))
        _print_result(_study(spec, f"{folder}/{name}", worker_options(workers, None)), as_json=False)


def explore(
    spec: Annotated[Path, typer.Argument(help="The spec, a TOML file.", metavar="SPEC.toml")],
    folder: FolderOption = None,
    data_root: DataRoot = None,
    workers: Workers = None,
    cluster: Cluster = None,
    gpu_share: GpuShare = 1.0,
    as_json: Json = False,
) -> None:
    """Run the study that a spec describes; rerun to resume or extend it."""
    look_for_data(data_root)
    from lratlas.config.code import look_for_code
    from lratlas.config.spec import read_spec

    look_for_code([spec.absolute().parent])
    read = read_spec(spec)
    folder = folder or _default_folder(spec.stem)
    _print_result(_study(read, folder, worker_options(workers, cluster, gpu_share)), as_json=as_json)


def reproduce(
    preset: Annotated[str, typer.Argument(help="The study to run, one of those listed below.", metavar="PRESET")],
    folder: FolderOption = None,
    repeats: Repeats = None,
    scale: Scale = None,
    width: Width = None,
    images: Images = None,
    test_images: TestImages = None,
    epochs: Epochs = None,
    finetune_epochs: FinetuneEpochs = None,
    lrs: Annotated[
        tuple[float, float, int] | None,
        typer.Option(help="The pre-training LRs: from LOW to HIGH, N per decade.", metavar="LOW HIGH N"),
    ] = None,
    measure: Measure = None,
    data_root: DataRoot = None,
    workers: Workers = None,
    cluster: Cluster = None,
    gpu_share: GpuShare = 1.0,
    as_json: Json = False,
) -> None:
    """Run one of the studies that come with the package."""
    from lratlas.config.grid import lr_grid
    from lratlas.config.presets import preset as named

    look_for_data(data_root)
    spec = named(
        preset,
        repeats=repeats,
        scale=scale,
        width=width,
        images=images,
        test_images=test_images,
        epochs=epochs,
        finetune_epochs=finetune_epochs,
        lrs=lr_grid(lrs[0], lrs[1], per_decade=lrs[2]) if lrs else None,
        measure=measure or (),
    )
    folder = folder or _default_folder(preset)
    _print_result(_study(spec, folder, worker_options(workers, cluster, gpu_share)), as_json=as_json)


def resume(
    folder: FolderArgument,
    data_root: DataRoot = None,
    workers: Workers = None,
    cluster: Cluster = None,
    gpu_share: GpuShare = 1.0,
    device: ResumeDevice = None,
    as_json: Json = False,
) -> None:
    """Resume an interrupted study."""
    look_for_data(data_root)
    from lratlas.api.explore import resume as continued

    with _running():
        atlas = continued(folder, **worker_options(workers, cluster, gpu_share), device=device, notice=notice)
    _print_result(atlas, as_json=as_json)


def status(folder: FolderArgument, as_json: Json = False) -> None:
    """Show progress and current findings of a study or a search."""
    from lratlas.study.folder import holds_search

    if holds_search(folder):
        from lratlas.cli.status import print_search_status

        print_search_status(folder, as_json=as_json)
        return
    from lratlas.atlas import load
    from lratlas.cli.status import facts, print_status, standing_of

    atlas = load(folder)
    found = standing_of(atlas)
    if as_json:
        # Read before printing, since a table may be damaged.
        print_json({**facts(atlas, found), **_result(atlas)})
    else:
        print_status(atlas, found)


def show(
    folder: FolderArgument,
    table: Annotated[
        str | None,
        typer.Argument(
            help="The table to print; by default boundaries for a study, evidence for a search.", metavar="TABLE"
        ),
    ] = None,
    form: Format = "table",
) -> None:
    """Print a table of a study or a search."""
    from lratlas.study.folder import holds_search

    if holds_search(folder):
        from lratlas.cli.status import search_table

        frame = search_table(folder, table)
    else:
        from lratlas.atlas import load

        frame = load(folder).table(table or "boundaries")
    if form == "csv":
        print_csv(frame)
    elif form == "json":
        print_json(frame.to_dicts())
    else:
        print_table(frame)
        if frame.is_empty():
            notice(
                "The table is empty: the spec does not ask for its contents, or their jobs are not done yet (see"
                " `lratlas status`)"
            )


def report(
    folder: FolderArgument,
    data_root: DataRoot = None,
    at_loss: Annotated[
        float | None, typer.Option(help="Also compare accuracies at this training loss.", metavar="LOSS")
    ] = None,
    figures: Annotated[
        Literal["study", "paper"] | None,
        typer.Option(
            help=(
                "Write only figures: those of the report (study), or the paper's figures with the data of this study"
                " (paper)."
            )
        ),
    ] = None,
) -> None:
    """Rewrite the report and the figures (PDF, SVG, CSV), also during a run."""
    look_for_data(data_root)
    from lratlas.study.folder import holds_search

    if holds_search(folder):
        from lratlas.cli.status import write_search_report

        write_search_report(folder)
        return
    from lratlas.atlas import load

    if at_loss is not None and not at_loss > 0:
        raise SpecError(f"--at-loss is {at_loss}; it must be above 0.")
    atlas = load(folder)
    if figures == "paper":
        from lratlas.api.report import write_paper_figures

        outcome = write_paper_figures(atlas)
        for figure, reason in outcome.items():
            say(f"{figure}: left out. {reason}" if reason else f"{figure}: written")
        say(f"Figures: {atlas.folder}/figures/paper")
    elif figures:
        from lratlas.api.report import draw_charts, write_files

        write_files(atlas, draw_charts(atlas, at_loss=at_loss), page=False)
        say(f"Figures: {atlas.folder}/figures")
    else:
        say(f"Report: {atlas.write_report(at_loss=at_loss)}")


def doctor(as_json: Json = False) -> None:
    """Show versions, cores, device, compiler and speed of this machine."""
    from lratlas.doctor import checkup

    facts = checkup()
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        say(str(value), lead=f"{name:>20}  ")


# In the order of use.
_PANELS: Mapping[str, Sequence[Any]] = {
    "Start": (demo, find, watch, doctor),
    "Study": (explore, reproduce, resume),
    "Inspect": (status, show, report, serve, compare, verify),
}
_EPILOGS: Mapping[Any, str] = {
    reproduce: "\n\n".join(["The studies:", *(f"{name}: {what}." for name, what in PRESETS.items())])
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(cls=Command, rich_help_panel=_panel, epilog=_EPILOGS.get(_command))(_command)
app.add_typer(data_app, name="data", rich_help_panel="Data")


def _default_folder(name: str) -> str:
    folder = f"lratlas-{name}"
    notice(f"The study is in {folder}; run the same command again to resume")
    return folder


def _study(spec: "Spec", folder: str, where: dict[str, Any]) -> "Atlas":
    from lratlas.study.run import open_study

    open_study(folder, spec)  # stores the spec before any slow import
    from lratlas.api.explore import explore as run_explore

    with _running():
        return run_explore(spec, folder=folder, **where, notice=notice)


@contextmanager
def _running() -> Generator[None]:
    """Turn errors of the user's code in a job of this process into a sentence while a study runs."""
    # Output of a user's module must not mix with the result.
    with redirect_stdout(sys.stderr):
        try:
            yield
        except Exception as error:
            from lratlas.execute.messages import sentence

            notes = getattr(error, "__notes__", None)
            if isinstance(error, LRAtlasError) or not notes:
                raise
            raise JobsFailed(f"{sentence(error)} {notes[-1]}") from error


def _result(atlas: "Atlas") -> dict[str, object]:
    return {
        "folder": atlas.folder,
        "boundaries": atlas.boundaries.to_dicts(),
        "regimes": atlas.regimes.to_dicts(),
        "summary": atlas.summary,
    }


def _print_result(atlas: "Atlas", *, as_json: bool) -> None:
    """Print the result in words, the answer first."""
    from lratlas.cli.status import print_answer, verdict_count
    from lratlas.study.folder import REPORT

    if as_json:
        print_json(_result(atlas))
        return
    print_answer(atlas)
    if len(atlas.boundaries):
        print_table(atlas.boundaries)
    for sentence in atlas.summary:
        say(sentence, lead="• ")
    if count := verdict_count(atlas):
        say(f"Verdicts on the paper's claims: {count}; details: `lratlas show {shlex.quote(atlas.folder)} claims`")
    if atlas.store.exists(REPORT):
        say(f"Report: {atlas.folder}/{REPORT}")
