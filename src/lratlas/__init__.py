"""LR Atlas: map what every learning rate does to a PyTorch model.

Public names load on first use, so importing the package is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lratlas.api.compare import Comparison, compare
    from lratlas.api.explore import explore, resume
    from lratlas.api.load import load
    from lratlas.atlas import Atlas
    from lratlas.config.grid import lr_grid
    from lratlas.measure.base import Chart, Measurement
    from lratlas.monitor.follow import Watch
    from lratlas.monitor.rules import Rules
    from lratlas.monitor.tracker import Look
    from lratlas.monitor.watch import watch
    from lratlas.recommendation import Recommendation
    from lratlas.search.advice import Advice
    from lratlas.search.find import find
    from lratlas.search.finder import Finder
    from lratlas.search.segments import Segment
    from lratlas.task import Task
    from lratlas.thresholds import Thresholds

    __version__: str

__all__ = [
    "Advice",
    "Atlas",
    "Chart",
    "Comparison",
    "Finder",
    "Look",
    "Measurement",
    "Recommendation",
    "Rules",
    "Segment",
    "Task",
    "Thresholds",
    "Watch",
    "compare",
    "explore",
    "find",
    "load",
    "lr_grid",
    "resume",
    "watch",
]

_HOMES = {
    "Advice": "search.advice",
    "Atlas": "atlas",
    "Chart": "measure.base",
    "Comparison": "api.compare",
    "Finder": "search.finder",
    "Look": "monitor.tracker",
    "Measurement": "measure.base",
    "Recommendation": "recommendation",
    "Rules": "monitor.rules",
    "Segment": "search.segments",
    "Task": "task",
    "Thresholds": "thresholds",
    "Watch": "monitor.follow",
    "compare": "api.compare",
    "explore": "api.explore",
    "find": "search.find",
    "load": "api.load",
    "lr_grid": "config.grid",
    "resume": "api.explore",
    "watch": "monitor.watch",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("lratlas")
    if name not in _HOMES:
        raise AttributeError(f"module 'lratlas' has no attribute {name!r}")
    return getattr(import_module(f"lratlas.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
