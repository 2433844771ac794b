"""LR Atlas: see where large learning rates lead, for any PyTorch model.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lratlas.comparing import compare
    from lratlas.exploring import explore
    from lratlas.opening import load
    from lratlas.search.advice import Advice
    from lratlas.search.find import find
    from lratlas.search.finder import Finder
    from lratlas.study.spec.grid import lr_grid
    from lratlas.task import Task
    from lratlas.watching.watch import watch

__all__ = ["Advice", "Finder", "Task", "compare", "explore", "find", "load", "lr_grid", "watch"]

_HOMES = {
    "Advice": "lratlas.search.advice",
    "Finder": "lratlas.search.finder",
    "Task": "lratlas.task",
    "compare": "lratlas.comparing",
    "explore": "lratlas.exploring",
    "find": "lratlas.search.find",
    "load": "lratlas.opening",
    "lr_grid": "lratlas.study.spec.grid",
    "watch": "lratlas.watching.watch",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'lratlas' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
