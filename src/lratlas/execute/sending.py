"""Send tasks to worker processes, together with the user's code wherever it is defined."""

import base64
import functools
import io
import json
import pickle
import pickletools
import sys
import types
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any, TypeAlias

from lratlas.errors import TaskError, first_line

# Path, source and search path of a module; path and source are None for a package without a file.
_Sent: TypeAlias = tuple[str | None, str | None, list[str] | None]


def pack_tasks(tasks: object) -> str:
    """Serialize tasks to text, with the code of functions and classes that a worker cannot import.

    Such code is in the user's script, notebook or prompt, and in modules loaded from outside the import path. Modules
    with a source file are sent as source and run in the worker when it needs them. For all other modules, only the
    functions and classes in use are sent.

    Raises:
        TaskError: The tasks refer to something that cannot be sent, such as an open file or a lock.
    """
    try:
        data = _pickle_value(tasks)
        sources, others = _pack_modules(_unimportable(data))
        with _by_value(others):
            data = _pickle_value(tasks) if others else data
    except (TypeError, pickle.PicklingError, AttributeError, RecursionError) as error:
        raise TaskError(
            f"The task cannot be sent to worker processes: {first_line(error)}; its functions must not refer to"
            " open files, locks or generators: create these inside the functions."
        ) from error
    return json.dumps([sources, base64.b64encode(data).decode()])


def _pickle_value(value: object) -> bytes:
    """Pickle a value with cloudpickle, which would otherwise import a cached function of the script by name."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, _CACHED) and obj.__module__ == "__main__":
                return _rebuild_cached, (obj.__wrapped__, obj.cache_parameters())
            return super().reducer_override(obj)

    file = io.BytesIO()
    Pickler(file).dump(value)
    return file.getvalue()


_CACHED: type[Any] = type(functools.lru_cache(len))


def _rebuild_cached(function: Any, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def unpack_tasks(text: str) -> Any:
    """Read tasks sent by the driver of this study; never used on text from a file.

    Functions of the user's script find their globals in this process's module ``__main__``, as they do in the script;
    the compiler also looks there.

    Raises:
        TaskError: The code of a module fails in this process.
    """
    sources, data = json.loads(text)
    _known.add({name: tuple(sent) for name, sent in sources.items()})
    try:
        return _Unpickler(io.BytesIO(base64.b64decode(data))).load()
    except MemoryError:  # memory may be available at the next attempt
        raise
    except Exception as error:
        modules = f"{', '.join(sources)} and what they import" if sources else "its modules"
        raise TaskError(
            f"The task cannot be created in a worker process: {type(error).__name__}:"
            f" {first_line(error).rstrip('.')}; worker processes must be able to import {modules}: install them,"
            " or set PYTHONPATH."
        ) from error


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


class _Source(SourceLoader):
    """The source of a module as it was sent, whatever file is at its path here."""

    def __init__(self, path: str, source: str) -> None:
        self._path, self._source = path, source

    def get_filename(self, fullname: str) -> str:  # noqa: ARG002 - the signature is Python's
        return self._path

    def get_data(self, path: str | bytes) -> bytes:
        if path != self._path:
            raise OSError(f"no file {path!r}")  # for example compiled code of another source
        return self._source.encode()


class _Known(MetaPathFinder):
    """An import finder for modules sent by other processes."""

    def __init__(self) -> None:
        self._sent: dict[str, _Sent] = {}

    def add(self, sent: dict[str, _Sent]) -> None:
        """Add modules, and forget earlier ones of the same name with another source."""
        for name in [name for name, what in sent.items() if self._sent.get(name, what) != what]:
            sys.modules.pop(name, None)
        self._sent |= sent
        if sent and self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of the module, if it was sent."""
        del path, target
        if fullname not in self._sent:
            return None
        file, source, places = self._sent[fullname]
        if file is None or source is None:
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = places or []
            return spec
        return spec_from_file_location(fullname, file, loader=_Source(file, source), submodule_search_locations=places)


_known = _Known()


def _unimportable(data: bytes) -> dict[str, types.ModuleType]:
    """Modules of this process that pickled data needs and that another process cannot import, by name."""
    found: dict[str, types.ModuleType] = {}
    left = {text for _, text, _ in pickletools.genops(data) if isinstance(text, str)}
    seen = set[str]()
    while left:
        name = left.pop()
        seen.add(name)
        module = sys.modules.get(name)
        if not isinstance(module, types.ModuleType) or _is_importable(name, module):
            continue
        found[name] = module
        left |= {*_parents(name), *_imported_modules(module)} - seen
    return found


def _parents(name: str) -> Iterable[str]:
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts)))


def _imported_modules(module: types.ModuleType) -> Iterable[str]:
    """Names of the modules that a module imports from."""
    for value in [*vars(module).values()]:
        name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str):
            yield name


def _is_importable(name: str, module: types.ModuleType) -> bool:
    """Whether another process can import this module by its name; checked without an import."""
    if name == "__main__":
        return True
    spec = _spec(name)
    file = getattr(module, "__file__", None)
    if spec is None or (file and spec.origin is None and spec.submodule_search_locations is not None):
        return False  # nothing, or a plain folder of the same name
    with suppress(OSError):  # one of them is not a file
        return Path(str(spec.origin)).samefile(str(file))
    return True


def _spec(name: str) -> ModuleSpec | None:
    path: Any = None
    spec: ModuleSpec | None = None
    for part in (*_parents(name), name):
        spec = _find_spec_at(part, path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec


def _find_spec_at(name: str, path: Any) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is None or finder is _known:
            continue
        with suppress(Exception):  # finders may be third-party code
            if (spec := find(name, path, None)) is not None:
                return spec
    return None


def _pack_modules(modules: dict[str, types.ModuleType]) -> tuple[dict[str, _Sent], list[types.ModuleType]]:
    """Split modules into those sent as source, if they have one, and those sent by value."""
    sources, others = dict[str, _Sent](), list[types.ModuleType]()
    packages = {parent for name in modules for parent in _parents(name)}
    for name, module in modules.items():
        file, places = getattr(module, "__file__", None), getattr(module, "__path__", None)
        source = _source(file)
        if source is not None or (file is None and name in packages):
            sources[name] = (file and str(Path(file).absolute()), source, places and [*places])
        else:
            others.append(module)
    return sources, others


def _source(file: object) -> str | None:
    if not isinstance(file, str) or not file.endswith(".py"):
        return None
    with suppress(OSError, UnicodeDecodeError):
        return Path(file).read_text(encoding="utf-8")
    return None


@contextmanager
def _by_value(modules: list[types.ModuleType]) -> Generator[None]:
    """Pickle the code of these modules by value inside the block."""
    import cloudpickle

    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
