"""Where files are stored for the next time."""

import os
from pathlib import Path

from lratlas.paths import home_expanded


def cache_folder() -> Path:
    """Where decoded images and the like go: ``LRATLAS_CACHE``, or ``lratlas`` in ``XDG_CACHE_HOME`` or ``~/.cache``."""
    given = os.environ.get("LRATLAS_CACHE")
    if given:
        return home_expanded(given)
    return home_expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "lratlas"
