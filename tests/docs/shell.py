"""A real shell whose `lratlas` is the one of this process, so that a command costs what it does and no start."""

import io
import json
import os
import select
import socket
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from lratlas.cli.app import main

# What stands on the path as `lratlas`: it hands its words over and prints what comes back.
_CLIENT = """#!{python} -SE
import json, os, socket, sys
line = socket.create_connection({address!r})
line.sendall(json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode() + b"\\n")
code, out, err = json.loads(line.makefile().read())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


def run_shell(text: str, folder: Path, scratch: Path) -> str:
    """Run a block for the shell in a folder; any command that fails ends it.

    Args:
        text: The block.
        folder: Where it is run.
        scratch: Its own folder, for what it takes.

    Returns:
        What it printed, standard error included.
    """
    client = scratch / "bin" / "lratlas"
    client.parent.mkdir(exist_ok=True)
    path = os.pathsep.join([str(client.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    printed = scratch / "printed.txt"
    # No socket in the file system: the path of a temporary folder may be too long for one.
    with socket.create_server(("127.0.0.1", 0)) as listener, printed.open("w", encoding="utf-8") as out:
        client.write_text(_CLIENT.format(python=sys.executable, address=listener.getsockname()), encoding="utf-8")
        client.chmod(0o755)
        shell = subprocess.Popen(
            ["sh", "-eu", "-c", text],
            cwd=folder,
            env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        while shell.poll() is None:
            if select.select([listener], [], [], 0.02)[0]:
                _answer(listener.accept()[0])
    said = printed.read_text(encoding="utf-8")
    assert shell.returncode == 0, f"{text}\n{said}"
    return said


def _answer(line: socket.socket) -> None:
    """Do what one `lratlas` asks for, in this process."""
    with line, line.makefile() as words:
        argv, folder, environment = json.loads(words.readline())
        out, err, code = io.StringIO(), io.StringIO(), 0
        with (
            chdir(folder),
            patch.dict(os.environ, environment),
            patch.object(sys, "argv", ["lratlas", *argv[1:]]),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as end:
                code = end.code
        line.sendall(json.dumps([code, out.getvalue(), err.getvalue()]).encode())
