"""Variables of a suspended training, and their state while its validation metric is measured."""

import copy
import gc
import inspect
import os
import random
from collections import OrderedDict, deque
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from lratlas.search.driven.world import enter, is_installed, world

_OWN = tuple(f"{each}{os.sep}" for each in (Path(torch.__file__).parent, Path(__file__).parents[2]))
_STANDARD = f"{Path(os.__file__).parent}{os.sep}"
_IMPORT = "<frozen importlib"
_DEEP, _MANY = 4, 10_000  # depth of attributes, and number of objects, that are searched
_CONTAINERS = {list, dict, set, deque, OrderedDict}
_PLAIN = (str, bytes, int, float, bool, type(None), Tensor, np.ndarray, ModuleType, type)


def variables() -> dict[str, Any]:
    """Variables of the training: those of its innermost function first, global ones last.

    Frames of libraries are ignored, unless the training itself is part of an installed package.
    """
    frames = [each for each in _frames() if not each.f_code.co_filename.startswith((*_OWN, "<frozen"))]
    frames = [each for each in frames if not _standard(each.f_code.co_filename)]
    users = [each for each in frames if not is_installed(each.f_code.co_filename)] or frames
    found = dict[str, Any]()
    for each in reversed(users):
        found |= {name: value for name, value in each.f_globals.items() if not name.startswith("__")}
    for each in reversed(users):
        found |= each.f_locals
    return found


def importing() -> bool:
    """Whether the training runs while its module is imported: no other training can import it before that ends."""
    return any(each.f_code.co_filename.startswith(_IMPORT) for each in _frames())


def modules_of(parameters: Iterable[Tensor]) -> list[nn.Module]:
    """Modules in the process that have any of the parameters; takes a tenth of a second."""
    own = {id(each) for each in parameters}
    # Compare types, because objects of other libraries may return anything from isinstance(), and there are many.
    kinds = subclasses(nn.Module)
    alive = [each for each in gc.get_objects() if type(each) in kinds and "_modules" in vars(each)]
    return [each for each in alive if any(id(parameter) in own for parameter in each.parameters())]


def modules_among(names: Mapping[str, Any]) -> list[nn.Module]:
    """Modules among the variables and in their attributes."""
    found = [each for each in _reachable(names) if issubclass(type(each), nn.Module)]
    return [each for each in found if "_modules" in vars(each)]


@contextmanager
def undo_changes(
    optimizers: Collection[Optimizer],
    parameters: Collection[Tensor],
    modules: Collection[nn.Module],
    names: Mapping[str, Any],
    roots: Collection[Path],
) -> Generator[None]:
    """Undo all changes of the block to a training at its end, in place.

    Restored are: weights and gradients; modes, buffers and other attributes of modules, such as the states of metrics;
    the groups of optimizers; random generators; the iterators of data loaders; and the global state of the process.

    Args:
        optimizers: Optimizers of the training; some have modes.
        parameters: Trained parameters.
        modules: Modules of the training.
        names: Variables of the training.
        roots: Folders whose modules belong to the training.
    """
    reachable = _reachable(names)
    every = {id(part): part for each in modules for part in each.modules()}
    own = [each for module in every.values() for each in module.parameters(recurse=False) if each.requires_grad]
    trained = {id(each): each for each in (*parameters, *own)}  # also of optimizers that have not taken a step yet
    buffers = {id(each): each for module in every.values() for each in module.buffers(recurse=False)}
    whole = [(each, each.data, each.data.clone()) for each in (trained | buffers).values()]
    gradients = [(each, each.grad) for each in trained.values() if each.is_leaf]
    generators = [(each, _generator_state(each)) for each in reachable if _generator_state(each) is not None]
    loaders = [(each, vars(each).get("_iterator")) for each in reachable if issubclass(type(each), DataLoader)]
    groups = [(group, dict(group)) for each in optimizers for group in each.param_groups]
    before, caching = world(roots), torch.is_autocast_cache_enabled()
    # Tensors that autograd stored for a pending backward pass must not count as changed.
    versions = [(each, each._version) for each, *_ in whole]
    try:
        for each, _ in gradients:
            each.grad = None
        for each, _ in loaders:
            each._iterator = None  # a persistent iterator would restart in the middle of the training's loop
        torch.set_autocast_cache_enabled(False)  # casts of weights without gradients must not remain in the cache
        with preserve_attributes(every.values()), torch.no_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(caching)
        for each, data, content in whole:
            data.copy_(content)
            if each.data_ptr() != data.data_ptr() or each.dtype != data.dtype:  # also if it was replaced
                each.data = data
        set_versions: Any = attrgetter("_C._autograd._unsafe_set_version_counter")(torch)
        set_versions(tuple(each for each, _ in versions), tuple(version for _, version in versions))
        for each, gradient in gradients:
            each.grad = gradient
        for each, iterator in loaders:
            each._iterator = iterator
        for group, options in groups:
            group.update(options)
        for each, state in generators:
            _draw_from(each, state)
        enter(before, roots)


@contextmanager
def preserve_attributes(objects: Iterable[Any]) -> Generator[None]:
    """Restore the attributes of objects and the content of plain containers among them after the block.

    Tensors among them that the block changed in place get their values back.
    """
    kept = [(vars(each), dict(vars(each))) for each in objects]
    values = [value for _, named in kept for value in named.values()]
    held = [(each, _content_ids(each), copy.copy(each)) for each in values if type(each) in _CONTAINERS]
    tensors = [(each, each._version, each.detach().clone()) for each in values if _plain(each)]
    try:
        yield
    finally:
        for own, named in kept:
            for name in own.keys() - named.keys():
                del own[name]
            own.update(named)
        for each, before, content in held:
            if _content_ids(each) != before:  # a loop over an unchanged one must not break
                each.clear()
                (each.extend if hasattr(each, "extend") else each.update)(content)
        for each, version, content in tensors:
            if each._version != version:
                each.data.copy_(content)


def _content_ids(container: Any) -> list[int]:
    """Ids of the elements of a container."""
    values: Iterable[Any] = container.values() if isinstance(container, dict) else ()
    return [id(each) for each in (*container, *values)]


def _plain(each: Any) -> bool:
    """Whether it is a tensor, but no parameter, that can be restored."""
    return type(each) is Tensor and each.layout is torch.strided and not each.is_inference()


def subclasses(kind: type) -> set[type]:
    """A class and all its subclasses."""
    return {kind}.union(*(subclasses(each) for each in kind.__subclasses__()))


def _frames() -> list[FrameType]:
    """Frames of this thread, the innermost first."""
    frames, frame = list[FrameType](), inspect.currentframe()
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def _standard(file: str) -> bool:
    return file.startswith(_STANDARD) and not is_installed(file)


def _reachable(names: Mapping[str, Any]) -> list[Any]:
    """Variables, their attributes and so on, deep enough to find a training's loaders and generators."""
    found, last = dict[int, Any](), [each for each in names.values() if not isinstance(each, _PLAIN)]
    for _ in range(_DEEP):
        layer = list[Any]()
        for each in last:
            if id(each) in found or len(found) > _MANY:
                continue
            found[id(each)] = each
            layer += [part for part in _parts(each) if not isinstance(part, _PLAIN)]
        last = layer
    return list(found.values())


def _parts(each: Any) -> Iterable[Any]:
    kind = type(each)
    if issubclass(kind, dict):
        return list(cast("dict[Any, Any]", each).values())[:_MANY]
    if issubclass(kind, list | tuple):
        return cast("list[Any]", each)[:_MANY]
    try:
        return list(vars(each).values()) if not issubclass(kind, nn.Module) else []
    except TypeError:  # it has no attributes of this kind
        return []


def _generator_state(each: Any) -> Any:
    """State of a random generator; None for other objects."""
    kind = type(each)
    if issubclass(kind, torch.Generator):
        return each.get_state()
    if issubclass(kind, np.random.Generator):
        return each.bit_generator.state
    if issubclass(kind, np.random.RandomState):
        return each.get_state()
    return each.getstate() if issubclass(kind, random.Random) and kind is not random.SystemRandom else None


def _draw_from(each: Any, state: Any) -> None:
    kind = type(each)
    if issubclass(kind, torch.Generator | np.random.RandomState):
        each.set_state(state)
    elif issubclass(kind, np.random.Generator):
        each.bit_generator.state = state
    else:
        each.setstate(state)
