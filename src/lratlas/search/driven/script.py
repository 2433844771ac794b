"""A script as a training: run as Python runs it, once for each LR, in this process."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from lratlas.errors import SpecError
from lratlas.search.segments import Segment

PLACEHOLDERS = ("lr", "seed", "steps")
"""What stands between braces in the arguments of a script."""


def script_training(script: Path, words: Sequence[str]) -> Callable[[Segment], object]:
    """A function of a segment that runs the script with its LR, seed and steps in the place of ``{lr}`` and the like.

    Args:
        script: The file.
        words: The arguments of the script.

    Raises:
        SpecError: The file cannot be read, or is no Python.
    """
    run = script_body(script)
    return lambda segment: run(filled(words, segment))


def script_body(script: Path) -> Callable[[Sequence[str]], None]:
    """A function of the arguments that runs a script as Python does, in this process.

    Args:
        script: The file.

    Raises:
        SpecError: The file cannot be read, or is no Python.
    """
    whole = script.absolute()
    try:
        code = compile(script.read_bytes(), str(whole), "exec", dont_inherit=True)
    except OSError as error:
        raise SpecError(f"The script {script} cannot be read: {error.strerror}.") from error
    except (SyntaxError, ValueError) as error:
        raise SpecError(f"The script {script} is no Python that can run here: {error}.") from error

    def run(words: Sequence[str]) -> None:
        sys.argv = [str(script), *words]
        # As Python does: the script's folder in the place of that of the program which was started.
        sys.path.insert(0, str(whole.resolve().parent))
        main = ModuleType("__main__")
        main.__file__ = str(whole)
        sys.modules["__main__"] = main
        exec(code, vars(main))

    return run


def filled(words: Sequence[str], segment: Segment) -> list[str]:
    """The arguments with what the placeholders stand for."""
    values = {"lr": repr(segment.lr), "seed": str(segment.seed), "steps": str(segment.stop)}
    result = list[str]()
    for word in words:
        for name, value in values.items():
            word = word.replace(f"{{{name}}}", value)  # noqa: PLW2901
        result.append(word)
    return result


def asks_for(words: Sequence[str], name: str) -> bool:
    """Whether an argument has a placeholder."""
    return any(f"{{{name}}}" in word for word in words)
