"""A script as a training: run as Python runs it, once for each LR, in this process."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from lratlas.errors import SpecError
from lratlas.search.segments import Segment

_PLACEHOLDER = re.compile(r"\{(lr|seed|steps|epochs)\}")


def script_body(script: Path) -> Callable[[Sequence[str]], None]:
    """A function of the arguments that runs a script as Python does, in this process.

    Args:
        script: The file.

    Raises:
        SpecError: The file cannot be read, or is not valid Python.
    """
    whole = script.absolute()
    try:
        code = compile(script.read_bytes(), str(whole), "exec", dont_inherit=True)
    except OSError as error:
        raise SpecError(
            f"The script {script} cannot be read: {error.strerror}. Give the path of a Python file."
        ) from error
    except (SyntaxError, ValueError) as error:
        raise SpecError(
            f"The script {script} is not valid Python: {error}. For other programs use lratlas find --command."
        ) from error

    def run(words: Sequence[str]) -> None:
        sys.argv = [str(script), *words]
        # As Python does: the script's folder in the place of that of the program which was started.
        sys.path.insert(0, str(whole.resolve().parent))
        main = ModuleType("__main__")
        main.__file__ = str(whole)
        sys.modules["__main__"] = main
        exec(code, vars(main))

    return run


def filled(words: Sequence[str], segment: Segment, epochs: int) -> list[str]:
    """The arguments with what the placeholders stand for."""
    values = {"lr": repr(segment.lr), "seed": segment.seed, "steps": segment.stop, "epochs": epochs}
    return [_PLACEHOLDER.sub(lambda found: str(values[found[1]]), word) for word in words]


def placeholders_in(words: Sequence[str]) -> set[str]:
    """What the arguments ask for."""
    return {found for word in words for found in _PLACEHOLDER.findall(word)}
