"""Commands that read studies: compare, serve, verify."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from lratlas.cli.options import DataRoot, FolderArgument, Format, Json, look_for_data
from lratlas.cli.terminal import print_csv, print_json, print_table, say
from lratlas.errors import SpecError
from lratlas.notices import show_notice as notice

if TYPE_CHECKING:
    from lratlas.study.expected import Fault
    from lratlas.study.store import Store


def compare(
    folders: Annotated[list[str], typer.Argument(help="The studies' folders, or their URLs.", metavar="FOLDER…")],
    form: Format = "table",
    html: Annotated[
        str | None, typer.Option(help="Also write an HTML page with the table and the chart.", metavar="FILE")
    ] = None,
) -> None:
    """Compare studies side by side: boundaries, best PLRs, gains."""
    from lratlas.api.compare import compare as compared
    from lratlas.report.charts.comparison import NOTE

    found = compared(folders)
    table = found.table
    if html is not None:
        found.write_html(html)
    if form == "csv":
        print_csv(table)
    elif form == "json":
        print_json(table.to_dicts())
    else:
        print_table(found.readable(), widest=16)
        say(NOTE)
    if html is not None:
        notice(f"The page is in {html}.")


def _port(given: str | int) -> int:
    # Typer's message would not name the value.
    text = str(given).strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 2**16):
        raise SpecError(f"--port is {text!r}, but must be a whole number from 0 (any free one) to 65535.")
    return int(text)


def serve(
    folder: FolderArgument,
    host: Annotated[
        str,
        typer.Option(help="The address to listen on; 0.0.0.0 accepts connections from the network.", metavar="ADDRESS"),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="The port to listen on; 0 for any free one.", metavar="PORT", parser=_port)
    ] = 0,
) -> None:
    """Serve the page of a study or a search, live, until Ctrl-C; prints the address."""
    from lratlas.serve import LiveServer

    shown, render, version = _page_of(folder)
    with LiveServer(render=render, version=version, host=host, port=port) as server:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end)
        if server.to_others:
            notice(
                "anybody on the network with the address can read the page; on other machines, the address begins with"
                " the name or IP address of this machine."
            )
        notice(f"serving {shown}, read-only; press Ctrl-C to stop.")
        say(server.url)
        sys.stdout.flush()
        server.serve_forever()


def _page_of(folder: str) -> "tuple[str, Callable[[], str], Callable[[], str]]":
    """The folder of a study or a search, and functions that return its page and the version of the page."""
    from lratlas.study.folder import holds_search

    if holds_search(folder):
        from lratlas.api.advise import live_page
        from lratlas.paths import expand_home
        from lratlas.search.journal import read_settings, version

        read_settings(expand_home(folder))
        return folder, lambda: live_page(folder), lambda: version(expand_home(folder))
    from lratlas.atlas import load
    from lratlas.study.progress import version as study_version

    store = load(folder).store
    return store.url, lambda: load(folder).report_html(live=True), lambda: study_version(store)


def _end(_signal: int, _frame: object) -> NoReturn:
    # Exit at once: nothing needs cleanup, and libraries that draw a page may crash during an orderly shutdown.
    notice("ended.")
    sys.stderr.flush()
    os._exit(0)


DAMAGED = 1
"""The exit code for faults that were not repaired."""


def verify(
    folder: FolderArgument,
    repair: Annotated[bool, typer.Option("--repair", help="Compute damaged and missing files again.")] = False,
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Check every file of a study or a search; --repair repairs them."""
    look_for_data(data_root)
    from lratlas.study.folder import holds_search

    at: Any
    if holds_search(folder):
        from lratlas.paths import expand_home
        from lratlas.search import verify as check
        from lratlas.search.verify import set_aside as repaired

        at = expand_home(folder)
    else:
        from lratlas.study import verify as check
        from lratlas.study.store import Store

        at, repaired = Store.open(folder), _repair
    found = check.faults(at)
    if found and repair:
        with redirect_stdout(sys.stderr):
            repaired(at, found)
    left = check.faults(at) if found and repair else found
    without, unfinished = check.find_unchecked(at), 0 if found else check.count_open(at)
    if as_json:
        facts = {"left": len(left), "unchecked": without, "unfinished": unfinished}
        print_json({"faults": [asdict(each) for each in found], **facts})
    else:
        for each in found:
            say(f"{each.path}: {each.what}")
        for path in without:
            say(f"{path}: has no checksum")
        if unfinished:
            say(f"Unfinished jobs: {unfinished}")
        if left:
            say(f"Faults: {len(left)}; {check.TO_MEND}.")
        elif found:
            say(f"Faults: {len(found)}, {check.MENDED}; the faulty files are in damaged/.")
        else:
            say("OK: all other files match their checksums." if without else "OK: all files match their checksums.")
    if left:
        raise typer.Exit(DAMAGED)


def _repair(store: "Store", found: "Sequence[Fault]") -> None:
    """Set damaged notes aside, restore the spec if necessary, and train or measure everything else again."""
    from lratlas.api.explore import resume
    from lratlas.study.verify import is_note, put_spec_back

    notes = [each.path for each in found if is_note(each.path)]
    for path in notes:
        store.set_aside(path)
    if put_spec_back(store):
        notice("spec.toml is restored from the plan; an altered version, if there was one, is in damaged/.")
    if len(notes) < len(found):
        resume(store.url, workers=None, notice=notice)
