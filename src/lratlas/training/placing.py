"""Move a user's functions to a device: copy their tensors, or name the tensors that cannot be copied."""

import copy
import dis
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain, islice
from operator import is_not
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from lratlas.errors import TaskError

_DEPTH = 8  # of nested functions and containers
_REGISTERED = {*vars(nn.Module())}  # attributes that PyTorch moves, or that hold no tensors
_ITEMS = 1000  # maximum number of inspected items per container


def on_device(function: Any, what: str, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """Move the tensors of a user's function to a device: modules, partial arguments and tensors are copied.

    Args:
        function: A module, a method of a module, a function or `functools.partial`.
        what: The role of the function, for the message.
        device: The target device.
        dtype: The dtype for floating-point tensors; None to keep theirs.

    Raises:
        TaskError: The function uses tensors on another device that cannot be moved, for example in a closure.
    """
    if isinstance(function, nn.Module):
        return copy_to(function, what, device, dtype)
    if isinstance(function, Tensor):
        return _move_tensor(function, device, dtype)
    if isinstance(function, MethodType) and isinstance(function.__self__, nn.Module):
        return MethodType(function.__func__, on_device(function.__self__, what, device, dtype))
    if isinstance(function, partial):
        inner = cast("partial[Any]", function)
        named = {key: _argument(value, what, device, dtype) for key, value in inner.keywords.items()}
        others = (_argument(value, what, device, dtype) for value in inner.args)
        return partial(on_device(inner.func, what, device, dtype), *others, **named)
    _refuse_others(function, what, device)
    return function


def copy_to(module: nn.Module, what: str, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """A copy of a module on a device, with all its tensors: parameters, buffers, and plain attributes.

    Args:
        module: The module.
        what: Its role, for the message.
        device: The target device.
        dtype: The dtype for floating-point tensors; None to keep theirs.

    Raises:
        TaskError: An attribute holds tensors on another device that cannot be moved.
    """
    made = copy.deepcopy(module)
    _move_module(made, what, device, dtype, set())
    return made


def _move_module(module: nn.Module, what: str, device: torch.device, dtype: torch.dtype | None, seen: set[int]) -> None:
    """Move a module in place, since other modules may refer to it."""
    if id(module) in seen:
        return
    module.to(device, dtype)
    parts = [*module.named_modules()]
    seen.update(id(part) for _, part in parts)
    for prefix, part in parts:
        for name, value in [*vars(part).items()]:
            if name not in _REGISTERED:
                place = f"{what}'s attribute {f'{prefix}.{name}'.lstrip('.')}"
                part.__dict__[name] = _move_attribute(value, place, device, dtype, seen)


def _move_attribute(value: Any, what: str, device: torch.device, dtype: torch.dtype | None, seen: set[int]) -> Any:
    """An attribute of a module with its tensors moved; the same object if nothing in it has to be."""
    if isinstance(value, Tensor):
        return _move_tensor(value, device, dtype)
    if isinstance(value, nn.Module):
        _move_module(value, what, device, dtype, seen)
    elif type(value) is tuple:
        moved = tuple(_move_attribute(each, f"{what}[{at}]", device, dtype, seen) for at, each in enumerate(value))
        return moved if any(map(is_not, moved, value)) else value
    elif type(value) in {list, dict}:
        if id(value) not in seen:
            seen.add(id(value))
            # In place, since other attributes may refer to it.
            for key, each in [*(value.items() if type(value) is dict else enumerate(value))]:
                value[key] = _move_attribute(each, f"{what}[{key!r}]", device, dtype, seen)
    elif isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
        _move_module(value.__self__, what, device, dtype, seen)
    elif callable(value):
        _refuse_others(value, what, device)
    return value


def _move_tensor(value: Tensor, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    return value.to(device, dtype if value.is_floating_point() else None)


def _refuse_others(function: Any, what: str, device: torch.device) -> None:
    """Refuse a function that uses tensors on another device.

    Raises:
        TaskError: It does.
    """
    for name, value in _tensors_in(function, "", set(), _DEPTH):
        places = {tensor.device.type: tensor.device for tensor in _all_tensors(value)}
        if elsewhere := [place for kind, place in places.items() if kind != device.type]:
            kind = "module" if isinstance(value, nn.Module) else "tensor"
            raise TaskError(
                f"The {what} holds the {kind} {name} on {elsewhere[0]}, but it is needed on {device}; make the"
                f" {what} a torch.nn.Module with it as a {'submodule' if kind == 'module' else 'buffer'}, which LR"
                f" Atlas moves, or move the {kind} in the function."
            )


def _argument(value: Any, what: str, device: torch.device, dtype: torch.dtype | None) -> Any:
    """An argument of a partial function, with all tensors in plain containers moved."""
    if type(value) in {list, tuple}:
        return type(value)(_argument(item, what, device, dtype) for item in value)
    if type(value) is dict:
        named = cast("dict[Any, Any]", value)
        return {key: _argument(item, what, device, dtype) for key, item in named.items()}
    return on_device(value, what, device, dtype)


def _all_tensors(value: Any) -> list[Tensor]:
    return [*value.parameters(), *value.buffers()] if isinstance(value, nn.Module) else [value]


def _tensors_in(value: Any, name: str, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    """Tensors and modules that a value refers to, with their names.

    The search covers closures, defaults and globals of functions, attributes used by methods and callable objects, and
    containers; it skips imported modules and classes.
    """
    if isinstance(value, Tensor | nn.Module):
        yield name, value
        return
    if id(value) in seen or not depth or isinstance(value, ModuleType | type):
        return
    seen.add(id(value))
    for inner, held in _held_tensors(value, name):
        yield from _tensors_in(held, inner, seen, depth - 1)


def _held_tensors(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        named = cast("Mapping[Any, Any]", value)
        yield from ((f"{name}[{key!r}]", item) for key, item in islice([*named.items()], _ITEMS))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"{name}[{at}]", item) for at, item in enumerate(islice(cast("list[Any]", value), _ITEMS)))
    elif isinstance(value, partial):
        inner = cast("partial[Any]", value)
        yield from [(name, inner.func), (name, inner.args), (name, inner.keywords)]
    elif isinstance(value, MethodType):
        yield from chain(_of_function(value.__func__), _attributes(value.__self__, value.__func__, "self"))
    elif isinstance(value, FunctionType):
        yield from chain(_of_function(value), _attributes(value, None, value.__name__))
    elif callable(value):
        call = getattr(type(value), "__call__", None)  # noqa: B004 - the function object itself is needed
        code = call if isinstance(call, FunctionType) else None
        yield from chain(_of_function(code) if code else (), _attributes(value, code, name or "self"))


def _of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The names and values that a function uses: closure, defaults and globals."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    found = list[tuple[str, Any]]()
    for name, cell in cells:
        try:
            found.append((name, cell.cell_contents))
        except ValueError:  # not assigned yet
            continue
    places, held = function.__code__.co_varnames, function.__globals__
    defaults = function.__defaults__ or ()
    last = function.__code__.co_argcount
    found += zip(places[last - len(defaults) : last], defaults, strict=False)
    found += (function.__kwdefaults__ or {}).items()
    found += [(name, held[name]) for name in _names(function, "LOAD_GLOBAL") if name in held]
    # Search the attributes of objects in a closure.
    for name, value in [*found]:
        if not callable(value) and hasattr(value, "__dict__"):
            found += _attributes(value, function, name)
    return iter(found)


def _attributes(value: Any, user: FunctionType | None, name: str) -> Iterator[tuple[str, Any]]:
    """Attributes of an object that a function uses, directly or in other methods; all of them if it is not Python."""
    if isinstance(value, Tensor | nn.Module | ModuleType | type) or not hasattr(value, "__dict__"):
        return
    held = vars(value)
    if user is None:
        used = {*held}
    else:
        used, left = set[str](), [user]
        while left:
            new = {*_names(left.pop(), "LOAD_ATTR", "LOAD_METHOD")} - used
            used |= new
            inner = (getattr(type(value), attribute, None) for attribute in new)
            methods = (method.fget if isinstance(method, property) else method for method in inner)
            left += [method for method in methods if isinstance(method, FunctionType)]
    yield from ((f"{name}.{attribute}", held[attribute]) for attribute in held if attribute in used)


def _names(function: FunctionType, *operations: str) -> Iterator[str]:
    """Names used by operations of a function or of its inner functions."""
    left: list[CodeType] = [function.__code__]
    while left:
        code = left.pop()
        left += [value for value in code.co_consts if isinstance(value, CodeType)]
        yield from (step.argval for step in dis.get_instructions(code) if step.opname in operations)
