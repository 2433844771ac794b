"""The commands of ``lratlas data``: list, locate and fetch data sets."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from lratlas.cli.commands import Command, Group
from lratlas.cli.options import DataRoot, Json
from lratlas.cli.terminal import print_json, print_table, say

if TYPE_CHECKING:
    from lratlas.data.sources import Fetching

app = typer.Typer(cls=Group, help="List and fetch data sets.")

Name = Annotated[str, typer.Argument(help="Name of the data set, as `list` shows it.", metavar="NAME")]


@app.callback(invoke_without_command=True)
def data(context: typer.Context) -> None:
    """List and fetch data sets."""
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help())


@app.command("list", cls=Command)
def list_(data_root: DataRoot = None, as_json: Json = False) -> None:
    """List the data sets known by name, and where they are."""
    from lratlas.data.sources import CATALOGUE, find

    rows: list[dict[str, str | bool | None]] = []
    for name, entry in CATALOGUE.items():
        found = find(name, root=data_root)
        rows.append(
            {
                "name": name,
                "title": found.title if found else entry.title,
                "found": found is not None,
                "path": str(found.path) if found else None,
            }
        )
    if as_json:
        print_json(rows)
        return
    import polars as pl

    print_table(pl.DataFrame(rows, schema_overrides={"path": pl.String}))


@app.command(cls=Command)
def path(name: Name, data_root: DataRoot = None, as_json: Json = False) -> None:
    """Print where a data set is."""
    from lratlas.data.sources import locate

    found = locate(name, root=data_root)
    if as_json:
        print_json({"name": name, "title": found.title, "path": str(found.path)})
    else:
        say(str(found.path))


@app.command(cls=Command)
def fetch(name: Name, data_root: DataRoot = None, as_json: Json = False) -> None:
    """Download a data set and check its SHA-256."""
    from lratlas.data.sources import fetch as fetched

    with _bar() as progress:
        files = [str(file) for file in fetched(name, root=data_root, progress=progress)]
    if as_json:
        print_json({"name": name, "files": files})
        return
    for file in files:
        say(file)


@contextmanager
def _bar() -> "Generator[Callable[[Fetching], None]]":
    """A progress bar on standard error; nothing if that is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        line = bar.add_task("connecting", total=None)

        def show_progress(fetching: "Fetching") -> None:
            bar.update(line, description=fetching.file, completed=fetching.done, total=fetching.total or None)

        yield show_progress
