"""Follow the README and the page of five minutes as a newcomer would: every command, in a new environment.

    python -m docs.walk FOLDER [--limit SECONDS]        in tests/; `make walk`

What takes longer than the limit is interrupted, as people do, and has to end with the exit code for that. Versions are
those of the lock. Two commands are not run: `make test`, which CI runs, and `lratlas data fetch`, which downloads.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from docs.pages import ROOT, blocks, blocks_of, table, text_of
from docs.settings import PROGRAM
from inherited import reset_inherited

LEFT_OUT = ("make test", "lratlas data fetch")
WAITED_FOR = ("python3 -m venv", ".venv/bin/pip", "make demo", "lratlas demo")  # what others continue from
INTERRUPTED = 130
# What stands in the README for the reader's own; the longer first. Fashion-MNIST takes the place of what is downloaded.
MEANT = {
    "cifar10-convnet": "fashion-convnet",
    "F1 F2 …": "lratlas-demo/ticks lratlas-demo/digits",
    "SPEC.toml": "study.toml",
    "PRESET": "fashion-convnet",
    "NAME": "fashion-mnist",
    "[TABLE]": "regimes",
    "--scale S": "--scale 0.1",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Run every command of the README and the page of five minutes.")
    parser.add_argument("folder", type=Path, help="a new one")
    parser.add_argument("--limit", type=float, default=120, help="seconds of a command before it is interrupted")
    given = parser.parse_args()
    reset_inherited()
    folder = given.folder.absolute()
    checkout = folder / "checkout"
    folder.mkdir(parents=True)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
    environment = os.environ | {
        "PATH": f"{checkout}/.venv/bin:{os.environ['PATH']}",
        "PIP_CONSTRAINT": str(ROOT / "requirements.lock"),
    }
    failed = list[str]()
    for command in [*page_commands(), *readme_commands()]:
        if command.startswith(LEFT_OUT):
            continue
        prepare(checkout, command)
        code, seconds = ran(command, checkout, environment, given.limit)
        good = code in {0, INTERRUPTED}
        failed += [] if good else [command]
        print(f"{'ok ' if good else 'BAD'} {code:4} {seconds:6.1f} s  {command.splitlines()[0]}", flush=True)  # noqa: T201
    sys.exit(f"{len(failed)} failed" if failed else 0)


def page_commands() -> list[str]:
    """The blocks of the page of five minutes: lines for the shell, and its Python as one program."""
    found, program = list[str](), ""
    for block in blocks_of(text_of("docs/index.md")):
        if block.language == "sh":
            found += [line.partition(" #")[0].strip() for line in block.text.splitlines()]
        elif block.language == "python":
            program += block.text
    return [*(line for line in found if not line.startswith("export")), f"python example.py\n{program}"]


def readme_commands() -> list[str]:
    """The commands of the README and of the page on commands, with names in place of placeholders."""
    text = text_of("README.md") + text_of("docs/commands.md")
    found = [line.partition(" #")[0].strip() for block in blocks("sh", text) for line in block.splitlines()]
    found += re.findall(r"`(lratlas explore study[^`]+)`", text)
    found += table(text, "command")
    found.append("python example.py\n" + "".join(blocks("python", text_of("README.md"))[:2]))
    return [named(command, number) for number, command in enumerate(found)]


def named(command: str, number: int) -> str:
    """The command with a study instead of F: a new one where it makes one, else that of the demonstration."""
    for word, meaning in MEANT.items():
        command = command.replace(word, meaning)
    makes = command.startswith(("lratlas explore", "lratlas reproduce"))
    return re.sub(r"\bF\b", f"study-{number}" if makes else "lratlas-demo/digits", command)


def prepare(checkout: Path, command: str) -> None:
    """Put what the command takes for granted into the reader's folder."""
    (own,) = (block.text for block in blocks_of(text_of("docs/own-model.md")) if block.title == "my_module.py")
    files: Mapping[str, str] = {
        "my_module.py": own,
        "study.toml": blocks("toml", text_of("docs/commands.md"))[0],
        "train.py": PROGRAM.replace('told["--state"]', 'told["--resume"]'),
        "example.py": command.partition("\n")[2],
    }
    for name, text in files.items():
        (checkout / name).write_text(text)
    # The searches have one folder by default.
    if command.startswith("lratlas find"):
        shutil.rmtree(checkout / "lratlas-find", ignore_errors=True)


def ran(command: str, folder: Path, environment: Mapping[str, str], limit: float) -> tuple[int, float]:
    """The exit code of a line in a shell, and the seconds that it took; interrupted after this many."""
    began = time.monotonic()
    with (folder.parent / "log.txt").open("ab") as log:
        log.write(f"\n$ {command}\n".encode())
        log.flush()
        shell = subprocess.Popen(
            ["bash", "-c", command.splitlines()[0]],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = shell.wait(None if command.startswith(WAITED_FOR) else limit)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGINT)
            code = shell.wait(60)
    # Python itself ends by the signal.
    return INTERRUPTED if code == -signal.SIGINT else code, time.monotonic() - began


if __name__ == "__main__":
    main()
