"""LR Atlas: see where large learning rates lead, for any PyTorch model.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lratlas.api.compare import compare
    from lratlas.api.explore import explore
    from lratlas.api.load import load
    from lratlas.config.grid import lr_grid
    from lratlas.measure.base import Chart, Measurement
    from lratlas.monitor.watch import watch
    from lratlas.search.advice import Advice
    from lratlas.search.find import find
    from lratlas.search.finder import Finder
    from lratlas.task import Task

__all__ = [
    "Advice",
    "Chart",
    "Finder",
    "Measurement",
    "Task",
    "compare",
    "explore",
    "find",
    "load",
    "lr_grid",
    "watch",
]

_HOMES = {
    "Advice": "lratlas.search.advice",
    "Chart": "lratlas.measure.base",
    "Finder": "lratlas.search.finder",
    "Measurement": "lratlas.measure.base",
    "Task": "lratlas.task",
    "compare": "lratlas.api.compare",
    "explore": "lratlas.api.explore",
    "find": "lratlas.search.find",
    "load": "lratlas.api.load",
    "lr_grid": "lratlas.config.grid",
    "watch": "lratlas.monitor.watch",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'lratlas' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
