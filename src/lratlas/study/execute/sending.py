"""Tasks on their way to worker processes: a user's own code goes with them, wherever it is defined."""

import base64
import importlib.machinery
import io
import pickle
import pickletools
import sys
import types
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from lratlas.errors import TaskError, first_line


def packed_tasks(tasks: object) -> str:
    """Tasks as text, with the code of functions and classes that a worker cannot import.

    These are all of the user's script, notebook or prompt, and of modules that were loaded from elsewhere than the
    import path.

    Raises:
        TaskError: The tasks refer to something that cannot be sent, such as an open file or a lock.
    """
    import cloudpickle

    try:
        data = cloudpickle.dumps(tasks)
        with _by_value(_unimportable(data)) as any_found:
            data = cloudpickle.dumps(tasks) if any_found else data
    except (TypeError, pickle.PicklingError, AttributeError, RecursionError) as error:
        raise TaskError(
            f"The task cannot be sent to worker processes: {first_line(error)}; its functions must not refer to open"
            " files, locks, generators and the like: make these inside the functions."
        ) from error
    return base64.b64encode(data).decode()


def unpacked_tasks(text: str) -> Any:
    """Tasks sent by the driver of this very study, never read from a file.

    Functions of the user's script find their globals in this process's module ``__main__``, as they do in the script:
    the compiler looks there too.
    """
    return _Unpickler(io.BytesIO(base64.b64decode(text))).load()


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: io.BytesIO) -> None:
        super().__init__(data)
        self._main = types.ModuleType("__main__")

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if module != "cloudpickle.cloudpickle" or name != "_make_function":
            return found

        def make(code: Any, names: dict[str, Any], *others: Any) -> Any:
            if names.get("__name__") != "__main__":
                return found(code, names, *others)
            sys.modules["__main__"] = self._main
            vars(self._main).update(names)
            return found(code, vars(self._main), *others)

        return make


def _unimportable(data: bytes) -> list[types.ModuleType]:
    """Modules of this process that pickled data name and that another process would not find."""
    named = {text for _, text, _ in pickletools.genops(data) if isinstance(text, str)}
    return [module for name, module in [*sys.modules.items()] if name in named and not _is_importable(name)]


def _is_importable(name: str) -> bool:
    if name == "__main__" or name in sys.builtin_module_names:
        return True
    path: Any = None
    for at, _ in enumerate(parts := name.split(".")):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[: at + 1]), path)
        if spec is None:
            return importlib.machinery.FrozenImporter.find_spec(name) is not None
        path = spec.submodule_search_locations
    return True


@contextmanager
def _by_value(modules: list[types.ModuleType]) -> Generator[bool]:
    """Have the code of these modules sent along."""
    import cloudpickle

    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield bool(modules)
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
