"""The command `lratlas verify`: whether a study's files are what was written."""

import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import Annotated

import typer

from lratlas.cli_options import CORES, DataRoot, FolderArgument, Json, look_for_data
from lratlas.terminal import notice, print_json, say

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
    from lratlas.study.integrity import faults
    from lratlas.study.store import Store

    store = Store.open(folder)
    found = faults(store)
    if found and repair:
        from lratlas.exploring import resume

        for note in (each.path for each in found if each.path.startswith(("failures/", "sittings/"))):
            store.set_aside(note)
        with redirect_stdout(sys.stderr):
            resume(folder, workers=CORES, notice=notice)
    left = faults(store) if repair else found
    if as_json:
        print_json({"faults": [asdict(each) for each in found], "left": len(left)})
    else:
        for each in found:
            say(f"{each.path}: {each.what}")
        if not found:
            say("Every file is as it was written.")
        elif not left:
            say(f"{len(found)} files were made again; what they were is in damaged/.")
        else:
            say(f"{len(left)} files are not as they were written; `lratlas verify --repair` makes them again.")
    if left:
        raise typer.Exit(DAMAGED)
