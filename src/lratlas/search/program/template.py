"""Training command with placeholders: its capabilities, and its words for one segment."""

import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lratlas.errors import SpecError
from lratlas.search.segments import Segment

PLACEHOLDERS: Mapping[str, str] = {
    "lr": "the LR at the first step",
    "final_lr": "the LR at the end: equal to the first, or 0",
    "steps": "steps to train in this segment",
    "start": "steps trained before this segment",
    "stop": "total steps after this segment",
    "epochs": "like {stop}, if the search counts epochs",
    "seed": "the seed of weights and data order",
    "checkpoint": "the path of the state, to read and to write",
    "average_from": "the step after which weights are averaged",
    "anneal_from": "the step from which the LR decreases; {stop} if it stays constant",
}
"""The placeholders of a command and their meaning."""

# ${NAME} belongs to a shell, {{name}} is a literal name in braces.
_BRACES = re.compile(r"\{\{(?P<literal>[A-Za-z_]\w*)\}\}|(?<!\$)\{(?P<name>[A-Za-z_]\w*)\}")

_OPTIONAL = re.compile(r"(?<!\S)\[((?!\s)[^\[\]]*\{checkpoint\}[^\[\]\s]*)\](?!\S)")  # a shell's `[ ` has a space


@dataclass(frozen=True, kw_only=True)
class Template:
    """A checked command.

    Attributes:
        words: The words, with placeholders.
        fresh: The words for a new training: without the brackets that contain ``{checkpoint}``.
        names: The placeholders in the command.
    """

    words: tuple[str, ...]
    fresh: tuple[str, ...]
    names: frozenset[str]

    @property
    def resumable(self) -> bool:
        """Whether a training can be continued: the command receives the path of its checkpoint."""
        return "checkpoint" in self.names

    @property
    def anneals(self) -> bool:
        """Whether a training can be annealed: the command receives the LR at the end."""
        return "final_lr" in self.names

    def fill(self, values: Mapping[str, str]) -> list[str]:
        """Replace the placeholders in the words with the values of :func:`values_of`."""
        words = self.fresh if values["start"] == "0" else self.words
        return [_BRACES.sub(lambda found: _fill_word(found, values), word) for word in words]


def placeholders(command: str) -> Template:
    """Split a command into words, as a shell would, and check its placeholders.

    Args:
        command: For example ``python train.py --lr {lr} --steps {steps} --state {checkpoint}``. It runs without a
            shell: write a pipeline as ``sh -c '…'``. ``{{name}}`` becomes ``{name}``; other braces have no meaning.
            Brackets that contain ``{checkpoint}``, such as ``[--resume {checkpoint}]``, are omitted if there is no
            checkpoint yet.

    Raises:
        SpecError: The text is not a command, a placeholder is unknown, ``{lr}`` is missing, or the command would not
            receive the step at which annealing begins.
    """
    try:
        words, fresh = (tuple(shlex.split(_OPTIONAL.sub(kept, command))) for kept in (r"\1", ""))
    except ValueError as error:
        raise SpecError(f"The command {command!r} has invalid shell quoting: {str(error).lower()}.") from error
    if not words:
        raise SpecError("The command is empty; it must be a program and its arguments, with {lr} among them.")
    names = frozenset(str(found["name"]) for word in words for found in _BRACES.finditer(word) if found["name"])
    if unknown := sorted(names - PLACEHOLDERS.keys()):
        raise SpecError(
            f"The command has the unknown placeholder {_list_names(unknown)}; allowed are"
            f" {_list_names(PLACEHOLDERS)}. Double any other braces."
        )
    if "lr" not in names:
        raise SpecError(
            f"The command has no {{lr}}: put it where the LR belongs, as in --lr {{lr}}. Allowed are"
            f" {_list_names(PLACEHOLDERS)}."
        )
    if "final_lr" in names and not names & {"checkpoint", "anneal_from"}:
        raise SpecError(
            "The command has {final_lr} but neither {checkpoint} nor {anneal_from}: it cannot know at which"
            " step the LR starts to decrease. Add one of them, or leave {final_lr} out."
        )
    return Template(words=words, fresh=fresh, names=names)


def check_program(template: Template) -> None:
    """Check that the command's program can be run.

    Raises:
        SpecError: There is no such program, or it is not executable.
    """
    program = template.words[0]
    if not _BRACES.search(program) and shutil.which(program) is None:
        raise SpecError(
            f"The command's program {program!r} is not found or not executable; use its path, or the program"
            " that runs it, as in python train.py."
        )


def values_of(piece: Segment, checkpoint: Path) -> dict[str, str]:
    """Values of the placeholders for one segment.

    Args:
        piece: The segment.
        checkpoint: Path from which its state is read and to which it is written.

    Returns:
        A text for each of :data:`PLACEHOLDERS`; LRs with all digits.
    """
    return {
        "lr": repr(float(piece.lr)),
        "final_lr": "0.0" if piece.annealed else repr(float(piece.lr)),
        "steps": str(piece.steps),
        "start": str(piece.start),
        "stop": str(piece.stop),
        "epochs": str(piece.stop),
        "seed": str(piece.seed),
        "checkpoint": str(checkpoint),
        "average_from": str(piece.average_from),
        "anneal_from": str(piece.stop if piece.anneal_from is None else piece.anneal_from),
    }


def _fill_word(found: re.Match[str], values: Mapping[str, str]) -> str:
    return f"{{{found['literal']}}}" if found["literal"] else values[str(found["name"])]


def _list_names(names: Mapping[str, str] | list[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
