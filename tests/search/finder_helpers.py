"""A synthetic training for the tests of the finder, cheap to import in separate processes."""

from pathlib import Path
from typing import Any

from lratlas.config.grid import lr_grid
from lratlas.search.finder import Finder
from lratlas.search.segments import Segment
from search.find_helpers import STEPS, Valley

LRS = lr_grid(1e-4, 1.0, per_decade=2)
VALLEY = Valley(best=0.02, width=0.1)


def a_finder(folder: Path, **settings: Any) -> Finder:
    given: dict[str, Any] = {"steps": STEPS, "lrs": LRS}
    return Finder(folder, **(given | settings))


def trained(asked: Segment) -> dict[str, Any]:
    """The report on a segment."""
    loss = VALLEY.loss(asked.lr, asked.stop, asked.seed)
    return {"value": loss, "averaged": None if asked.annealed else 0.9 * loss, "losses": [2.0, 1.0, loss]}
