"""The command `lratlas find`: the initial LR for a spec's task, or for a program that trains."""

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lratlas.cli.options import CORES, SCHEDULES, DataRoot, Json, choose, count, count_workers, look_for_data
from lratlas.cli.terminal import print_json, print_table, say
from lratlas.errors import SpecError
from lratlas.notices import show_notice as notice
from lratlas.notices import warn_on_failure
from lratlas.paths import expand_home

if TYPE_CHECKING:
    from lratlas.search.advice import Advice

_FOLDER = "lratlas-find"
_FOLLOWS = "with a spec, the task determines it"
_NO_PROGRAM = "a search with a spec runs no program"
_IN_TURN = "a script trains one LR at a time, in this process"
_UNFIT: Mapping[str, Mapping[str, str]] = {
    "SPEC.toml": {
        **dict.fromkeys(("value", "metric-pattern", "direction", "samples", "chance", "limit"), _FOLLOWS),
        "timeout": _NO_PROGRAM,
        "stall": _NO_PROGRAM,
        "workers": "a search with a spec trains several LRs at once in one process",
        "retry-failed": "with a spec, an LR fails only if it diverges",
    },
    "--script": dict.fromkeys(("timeout", "stall", "workers"), _IN_TURN),
    "--command": {"value": "a program prints its metric (--metric, --metric-pattern)"},
}
"""The options that do not apply to each kind of search, with the reason."""


def find(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help=(
                "A spec, which gives the task, the first LRs and the length. After --: the arguments of a --script,"
                " with {lr}, {seed}, {steps}, {epochs}."
            ),
            metavar="SPEC.toml | -- ARGUMENTS",
        ),
    ] = None,
    script: Annotated[
        Path | None,
        typer.Option(help="A Python training script, run unchanged.", metavar="FILE"),
    ] = None,
    value: Annotated[
        str | None,
        typer.Option(
            help=(
                "The validation metric, as an expression over the script's variables; by default a metric that the"
                " script prints or returns."
            ),
            metavar="EXPRESSION",
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            "--metric-pattern",
            help="A regular expression that finds the metric in the output of the value or of the program.",
            metavar="REGEX",
        ),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            help="A training program, with the placeholders {lr}, {steps}, {checkpoint}, …", metavar="COMMAND"
        ),
    ] = None,
    folder: Annotated[
        str, typer.Option("--folder", "-f", help="Search folder; rerun to resume.", metavar="FOLDER")
    ] = _FOLDER,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Steps of a full training; by default those of the spec, or of one training of the script.",
            metavar="N",
            parser=partial(count, "--steps"),
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs of a full training, instead of --steps: for a spec, or a program or script with {epochs}.",
            metavar="N",
            parser=partial(count, "--epochs"),
        ),
    ] = None,
    lrs: Annotated[
        tuple[float, float, int] | None,
        typer.Option(help="The first LRs to try: from LOW to HIGH, N per decade.", metavar="LOW HIGH N"),
    ] = None,
    budget: Annotated[
        float, typer.Option(help="The most that the search can cost, in full trainings.", metavar="TRAININGS")
    ] = 1.5,
    tolerance: Annotated[
        float, typer.Option(help="Metrics that differ by less than this share count as equally good.", metavar="SHARE")
    ] = 0.01,
    schedule: Annotated[
        str,
        typer.Option(
            help="The LR schedule of the full training: constant, linear or cosine (to zero).", metavar="NAME"
        ),
    ] = "constant",
    warmup: Annotated[
        int,
        typer.Option(
            help="Steps (with --epochs: epochs) of warm-up in the full training.",
            metavar="STEPS",
            parser=partial(count, "--warmup", least=0),
        ),
    ] = 0,
    seed: Annotated[
        int,
        typer.Option(
            help="The first seed of weights and batch order.", metavar="N", parser=partial(count, "--seed", least=0)
        ),
    ] = 0,
    direction: Annotated[
        str | None,
        typer.Option(
            help=(
                "minimize or maximize the metric of a program or script; by default minimize, or for a script what"
                " the name of the metric suggests."
            ),
            metavar="DIRECTION",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help=(
                "With a spec: accuracy (the default if there are labels) or loss. With --command: the name of the"
                " validation metric in the program's output. With --script: its name in the output or in the value."
            ),
            metavar="NAME",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            help="The number of validation samples of the program's accuracy.",
            metavar="N",
            parser=partial(count, "--samples"),
        ),
    ] = None,
    chance: Annotated[
        float | None,
        typer.Option(help="The program's metric for a model that has learned nothing.", metavar="X"),
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(
            help=(
                "The best possible value of the program's metric; by default 1 or 100 for an accuracy and 0 for a"
                " loss, if all values agree with it."
            ),
            metavar="X",
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="The longest time that one run of the program can take.", metavar="SECONDS")
    ] = None,
    stall: Annotated[
        float | None, typer.Option(help="The longest time that the program can run without output.", metavar="SECONDS")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help=(
                "The number of programs that run at once and share the GPUs (--command only); by default one per GPU,"
                " or one per core."
            ),
            metavar="N",
            parser=partial(count_workers, least=1),
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Train failed segments again, except those that diverged (--command, --script only)."
        ),
    ] = False,
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Find the initial LR to use, for the cost of about 1.5 trainings."""
    ways = {
        "SPEC.toml": bool(words) and script is None,
        "--script": script is not None,
        "--command": command is not None,
    }
    if sum(ways.values()) != 1 or (script is None and len(words or ()) > 1):
        raise SpecError("find needs exactly one of SPEC.toml, --script and --command.")
    way = next(name for name, taken in ways.items() if taken)
    if steps is not None and epochs is not None:
        raise SpecError("--steps and --epochs both give the length of a full training; use only one of them.")
    if way == "SPEC.toml" and words and words[0].endswith(".py"):
        raise SpecError(
            f"{words[0]} is a script; run lratlas find --script {words[0]} -- ARGUMENTS, with {{lr}} in the arguments."
        )
    given: dict[str, Any] = {
        "value": value,
        "metric": metric,
        "metric-pattern": pattern,
        "direction": direction,
        "samples": samples,
        "chance": chance,
        "limit": limit,
        "timeout": timeout,
        "stall": stall,
        "workers": workers,
        "retry-failed": retry_failed or None,
        "steps": steps,
        "epochs": epochs,
    }
    given = {name: each for name, each in given.items() if each is not None}
    for name in given.keys() & _UNFIT[way].keys():
        raise SpecError(f"--{name} needs --{'script' if name == 'value' else 'command'}; {_UNFIT[way][name]}.")
    look_for_data(data_root)
    choose("--schedule", schedule, SCHEDULES)
    choose("--direction", given.get("direction", "minimize"), ("minimize", "maximize"))
    settings: dict[str, Any] = {
        "budget": budget,
        "tolerance": tolerance,
        "schedule": schedule,
        "warmup": warmup,
        "seed": seed,
    }
    if lrs:
        from lratlas.config.grid import lr_grid

        settings["lrs"] = lr_grid(lrs[0], lrs[1], per_decade=lrs[2])
    with redirect_stdout(sys.stderr):
        if script is not None:
            advice = _for_script(script, words or [], folder, settings, given)
        elif command is not None:
            advice = _for_command(command, folder, settings, given)
        else:
            advice = _for_spec(Path((words or [""])[0]), folder, settings, given)
    _print(advice, folder, as_json=as_json)


def _for_spec(spec: Path, folder: str, settings: dict[str, Any], given: dict[str, Any]) -> "Advice":
    from lratlas.config.code import look_for_code
    from lratlas.config.spec import read_spec

    read = read_spec(spec)
    look_for_code([spec.absolute().parent])
    from lratlas.config.tasks import tasks_from
    from lratlas.search.find import find as found

    options: dict[str, Any] = {"lrs": read.pretrain.lrs}
    if not given.keys() & {"steps", "epochs"}:
        options |= {"steps": read.pretrain.steps, "epochs": read.pretrain.epochs}
    return found(
        tasks_from(read.task).of(0),
        folder=folder,
        device=read.training.device,
        **(options | given | settings),
    )


def _for_script(
    script: Path, words: list[str], folder: str, settings: dict[str, Any], given: dict[str, Any]
) -> "Advice":
    from lratlas.search.driven.find import find_by_script
    from lratlas.search.progress import shown

    renamed = {"metric-pattern": "pattern", "retry-failed": "retry_failed"}
    options = {renamed.get(name, name): each for name, each in given.items()}
    with shown(True) as report:
        return find_by_script(
            script, words, value=options.pop("value", None), folder=folder, progress=report, **settings, **options
        )


def _for_command(command: str, folder: str, settings: dict[str, Any], given: dict[str, Any]) -> "Advice":
    from lratlas.devices import visible_gpus
    from lratlas.search.finder import Finder
    from lratlas.search.journal import SETTINGS
    from lratlas.search.program.command import find_by_command
    from lratlas.search.program.template import check_program, placeholders
    from lratlas.search.progress import shown

    counted = "epochs" if "epochs" in given else "steps"
    if counted not in given:
        raise SpecError(
            "--command needs the length of a full training: --steps, or --epochs for a program with {epochs}."
        )
    settings |= {"steps": given[counted], "counted": counted, "direction": given.get("direction", "minimize")}
    settings |= {name: given[name] for name in ("samples", "chance", "limit") if name in given}
    template = placeholders(command)
    check_program(template)
    if not (expand_home(folder) / SETTINGS).exists():  # an existing search keeps its settings
        settings |= {"resumable": template.resumable, "anneal": template.anneals}
    gpus = visible_gpus()
    finders = [Finder(folder, **settings) for _ in range(given.get("workers") or len(gpus) or CORES)]
    if "retry-failed" in given:
        finders[0].retry_failed()
    with shown(True) as report:
        return find_by_command(
            command,
            finders,
            metric=given.get("metric"),
            pattern=given.get("metric-pattern"),
            timeout=given.get("timeout"),
            stall=given.get("stall"),
            gpus=gpus,
            ended=lambda _: report(finders[0]),
            notice=notice,
        )


def _print(advice: "Advice", folder: str, *, as_json: bool) -> None:
    from lratlas.api.advise import advice_facts, write_advice
    from lratlas.cli.status import print_advice

    if as_json:
        print_json(advice_facts(advice))
    else:
        longest = advice.longest()
        print_table(longest.select(each.name for each in longest if each.count()).rename({"steps": advice.counted}))
        print_advice(advice)
    sys.stdout.flush()
    with warn_on_failure("The advice could not be written"):
        page = write_advice(advice, folder)
        if not as_json:
            say(f"Report: {page}")
