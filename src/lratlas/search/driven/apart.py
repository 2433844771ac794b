"""What trainings of a search must not share: the parameters that they train, and the checkpoints that they load."""

import os
from collections.abc import Iterable, MutableMapping
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from lratlas.errors import SearchError

_trained: MutableMapping[Tensor, object] = WeakIdKeyDictionary()
_written: dict[str, tuple[object, float]] = {}


def claim(parameters: Iterable[Tensor], owner: object) -> None:
    """Make sure that no other training has trained these parameters.

    Raises:
        SearchError: Another one has.
    """
    if any(each.requires_grad and _trained.setdefault(each, owner) is not owner for each in parameters):
        raise SearchError(
            "Two trainings of the search train the same parameters, so that the second one does not begin anew: the"
            " model is made outside the function, which must make it itself. Mend it, and give another folder."
        )


def wrote(file: object, owner: object, lr: float) -> None:
    """Remember who wrote a checkpoint last.

    Args:
        file: As `torch.save` takes it.
        owner: The training.
        lr: Its LR.
    """
    if path := _path(file):
        _written[path] = owner, lr


def foreign(file: object, owner: object, lr: float) -> str | None:
    """What is wrong with loading a checkpoint: that another training wrote it last. None where nothing is."""
    path = _path(file)
    writer, other = _written.get(path, (owner, lr))
    if writer is owner:
        return None
    return (
        f"The training at LR {lr:.3g} loads {path}, which the one at LR {other:.3g} has written. Give each training"
        " files of its own, such as --out=runs/{lr}; delete those that are there, and give another folder."
    )


def _path(file: Any) -> str:
    """The absolute path of a file; empty where it has none."""
    name = getattr(file, "name", file)
    return os.path.abspath(os.fspath(name)) if isinstance(name, str | os.PathLike) else ""  # noqa: PTH100 - as it is
