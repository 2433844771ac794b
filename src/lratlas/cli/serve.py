"""The command `lratlas serve`: a study's page, live in a browser."""

import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from lratlas.cli.options import FolderArgument
from lratlas.cli.terminal import notice, say
from lratlas.errors import SpecError


def _port(given: str | int) -> int:
    # Typer's own message would not name the value.
    text = str(given).strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 2**16):
        raise SpecError(f"--port is {text!r}, but must be a whole number from 0 (any free one) to 65535.")
    return int(text)


def serve(
    folder: FolderArgument,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 lets the network in.", metavar="ADDRESS")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="The port to listen on; 0 for any free one.", metavar="PORT", parser=_port)
    ] = 0,
) -> None:
    """Show a study's page in a browser, also while it runs; prints the address, and goes on until Ctrl-C."""
    from lratlas.atlas import load
    from lratlas.serve.server import LiveServer
    from lratlas.study.plan.progress import version

    store = load(folder).store
    with LiveServer(
        render=lambda: load(folder).report_html(live=True), version=lambda: version(store), host=host, port=port
    ) as server:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end)
        if server.to_others:
            notice(
                "anybody on the network who has the address can read the study; elsewhere than on this machine it"
                " begins with this machine's name or number."
            )
        notice(f"{store.url} is shown, read-only, until Ctrl-C.")
        say(server.url)
        sys.stdout.flush()
        server.serve_forever()


def _end(_signal: int, _frame: object) -> NoReturn:
    # At once: there is nothing to tidy up, and libraries at work on a page do not bear an orderly end around them.
    notice("ended.")
    sys.stderr.flush()
    os._exit(0)
