"""LR Atlas: see where large learning rates lead, for any PyTorch model.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lratlas.advise.advice import Advice
    from lratlas.advise.find import find
    from lratlas.advise.finder import Finder
    from lratlas.advise.watch.watch import watch
    from lratlas.comparing import compare
    from lratlas.exploring import explore
    from lratlas.opening import load
    from lratlas.study.spec.grid import lr_grid
    from lratlas.task import Task

__all__ = ["Advice", "Finder", "Task", "compare", "explore", "find", "load", "lr_grid", "watch"]

_HOMES = {
    "Advice": "lratlas.advise.advice",
    "Finder": "lratlas.advise.finder",
    "Task": "lratlas.task",
    "compare": "lratlas.comparing",
    "explore": "lratlas.exploring",
    "find": "lratlas.advise.find",
    "load": "lratlas.opening",
    "lr_grid": "lratlas.study.spec.grid",
    "watch": "lratlas.advise.watch.watch",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'lratlas' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
