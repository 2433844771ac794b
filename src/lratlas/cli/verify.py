"""The command `lratlas verify`: whether a study's files are what was written."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from lratlas.cli.options import CORES, DataRoot, FolderArgument, Json, look_for_data
from lratlas.cli.terminal import notice, print_json, say

if TYPE_CHECKING:
    from lratlas.study.integrity import Fault
    from lratlas.study.store.store import Store

DAMAGED = 1
"""The exit code where something is wrong and was not repaired."""


def verify(
    folder: FolderArgument,
    repair: Annotated[bool, typer.Option("--repair", help="Compute what is damaged or missing again.")] = False,
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Check every file of a study against its checksum, and name what is damaged or missing."""
    look_for_data(data_root)
    from lratlas.study.integrity import faults, unchecked
    from lratlas.study.store.store import Store

    store = Store.open(folder)
    found = faults(store)
    if found and repair:
        with redirect_stdout(sys.stderr):
            _repair(store, found)
    left = faults(store) if found and repair else found
    without = unchecked(store)
    if as_json:
        print_json({"faults": [asdict(each) for each in found], "left": len(left), "unchecked": without})
    else:
        for each in found:
            say(f"{each.path}: {each.what}")
        for path in without:
            say(f"{path}: has no checksum")
        say(_sentence(len(found), len(left), len(without)))
    if left:
        raise typer.Exit(DAMAGED)


def _repair(store: "Store", found: "Sequence[Fault]") -> None:
    """Make again what can be made from other files, then what has to be trained or measured for it."""
    from lratlas.atlas import load
    from lratlas.exploring import resume
    from lratlas.study.integrity import is_note
    from lratlas.study.store.made import is_made

    made = [each.path for each in found if is_made(each.path)]
    notes = [each.path for each in found if is_note(each.path)]
    for path in (*made, *notes):
        if store.exists(path):
            store.set_aside(path)
    if len(made) + len(notes) < len(found):
        resume(store.url, workers=CORES, notice=notice)
    if made:
        load(store.url).write_report()


def _sentence(found: int, left: int, without: int) -> str:
    if left:
        return f"{left} files are not as they were written; `lratlas verify --repair` makes them again."
    if found:
        return f"{found} files were made again; what they were is in damaged/."
    return "Every other file is as it was written." if without else "Every file is as it was written."
