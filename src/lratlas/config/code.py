"""A user's own code, by its place."""

import importlib
import sys
from pathlib import Path
from typing import Any

from lratlas.errors import SpecError


def import_object(name: str, where: str) -> Any:
    """What a place names; modules in the current folder are found.

    Args:
        name: The place, ``module:attribute``.
        where: The field of the spec, for messages.

    Returns:
        The attribute; None where the module has none of that name.

    Raises:
        SpecError: The module is missing, or importing it fails.
    """
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise SpecError(
            f"{where}: {name} cannot be imported: {error}; it must be in the current folder or installed."
        ) from error
    except (Exception, SystemExit) as error:
        raise SpecError(f"{where}: importing {module} failed: {type(error).__name__}: {error}") from error
