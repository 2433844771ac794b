"""Import a user's code by its place."""

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from lratlas.errors import SpecError
from lratlas.notices import LOG

_places = list[str]()


def look_for_code(places: Iterable[str | Path]) -> None:
    """Look for modules that a spec names in these folders, before all others.

    All other modules, such as imports of the user's modules, are searched there last: a file there cannot shadow an
    installed library.
    """
    given = [*map(str, places)]
    _places[:] = dict.fromkeys([*given, *_places])
    sys.path.extend(place for place in given if place not in sys.path)


def import_object(name: str, where: str) -> Any:
    """The object at a place; the module is in a folder of `look_for_code`, the current folder, or installed.

    A warning names the module to be imported, and its file.

    Args:
        name: The place, ``module:attribute``.
        where: The field of the spec, for messages.

    Returns:
        The attribute; None if the module lacks it.

    Raises:
        SpecError: The module is missing, or importing it fails.
    """
    module, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        _import_package(module.partition(".")[0], [*_places, here])
        return getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise SpecError(
            f"{where}: {name} cannot be imported: {error}; it must be installed, or in the folder of the spec, or"
            " in the current folder."
        ) from error
    except (Exception, SystemExit) as error:
        raise SpecError(f"{where}: importing {module} failed: {type(error).__name__}: {error}") from error


def _import_package(package: str, places: Sequence[str]) -> None:
    """Import the outermost package of a module, from these places first, after a warning."""
    if package in sys.modules:
        return
    own = PathFinder.find_spec(package, places)
    if own and own.origin is None:
        own = None  # a plain folder, which must not shadow a library of that name
    if (found := own or importlib.util.find_spec(package)) is None:
        return
    LOG.warning("Imports %s from %s.", package, found.origin or ", ".join(found.submodule_search_locations or ()))
    if own and own.loader:
        module = sys.modules[package] = importlib.util.module_from_spec(own)
        try:
            own.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(package, None)
            raise
