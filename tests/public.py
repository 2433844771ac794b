"""The public names with their signatures, as text.

PYTHONPATH=tests python -m public > tests/public.txt
"""

import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import lratlas


def public_modules() -> list[str]:
    """The modules that declare public names."""
    names = ["lratlas", *(found.name for found in pkgutil.walk_packages(lratlas.__path__, "lratlas."))]
    return [name for name in names if name != "lratlas.__main__" and "__all__" in vars(import_module(name))]


def public_text() -> str:
    """Each public module with its names; of classes their public methods too."""
    return "\n".join(line for module in public_modules() for line in _of_module(module)) + "\n"


def _of_module(name: str) -> Iterator[str]:
    module = import_module(name)
    yield f"# {name}"
    for each in sorted(module.__all__):
        value = getattr(module, each)
        if not inspect.isclass(value):
            yield f"{each}{_signature(value)}"
            continue
        yield f"class {each}{'' if issubclass(value, Exception) else _signature(value)}"
        for member, found in sorted(inspect.getmembers_static(value)):
            function = getattr(found, "fget", None) or getattr(found, "__func__", found)
            if inspect.isfunction(function) and function.__module__.startswith("lratlas.") and member[0] != "_":
                yield f"    {member}{_signature(found)}"


def _signature(value: Any) -> str:
    """The names, kinds and defaults of the parameters; annotations are the type checker's affair."""
    if isinstance(value, classmethod):
        value = value.__func__
    if not callable(value):
        return ""
    parameters = inspect.signature(value).parameters.values()
    shown = [each.replace(annotation=inspect.Parameter.empty) for each in parameters]
    return re.sub(r"<(?:built-in )?function (\S+?)(?:>? at \w+)?>", r"\1", str(inspect.Signature(shown)))


if __name__ == "__main__":
    sys.stdout.write(public_text())
