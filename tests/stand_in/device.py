"""A stand-in for a GPU: tensors that say they are on another device, computed by the CPU.

Importing this module registers the device ``standin`` in this process, for good. As on a GPU, tensors of two devices do
not mix, NumPy does not see its tensors, and its random numbers come from its own generator. ``waits`` lists the
operations that would make the host wait for the device.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._pytree import tree_flatten, tree_map

NAME = "standin"
GENERATOR = torch.Generator()
waits: list[str] = []
FLOAT64 = os.environ.get("STAND_IN_FLOAT64") != "no"  # Apple's GPUs have none

aten: Any = torch.ops.aten
_WAITING = {aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten.masked_select.default}
_COPYING = {aten.copy_.default, aten._to_copy.default, aten._copy_from.default}
_RANDOM = {"normal_", "uniform_", "random_", "bernoulli_", "bernoulli", "native_dropout", "multinomial", "exponential_"}


class Module:
    """What PyTorch and LR Atlas ask of a device's module."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        GENERATOR.manual_seed(seed)

    def manual_seed(self, seed: int) -> None:
        GENERATOR.manual_seed(seed)

    def get_rng_state(self, _device: object = 0) -> Tensor:
        return GENERATOR.get_state()

    def set_rng_state(self, state: Tensor, _device: object = 0) -> None:
        GENERATOR.set_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class Away(Tensor):
    """A tensor on the device; ``raw`` holds its numbers."""

    raw: Tensor

    @staticmethod
    def __new__(cls: type["Away"], raw: Tensor) -> "Away":
        if raw.dtype == torch.float64 and not FLOAT64:
            raise TypeError(f"{NAME} does not support float64")
        made = Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
            cls,
            raw.shape,
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )
        made.raw = raw
        return made

    def __repr__(self, **_: object) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"Away({self.raw!r})"

    def tolist(self) -> Any:  # PyTorch's own refuses subclasses
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(
        cls, op: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _compute(op, *args, **(kwargs or {}))


def _compute(op: Any, *args: Any, **kwargs: Any) -> Any:
    """An operation on the numbers behind the tensors."""
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    own = [each for each in tensors if isinstance(each, Away)]
    if op not in _COPYING and own and any(each.dim() for each in tensors if not isinstance(each, Away)):
        raise RuntimeError(f"Expected all tensors to be on the same device: {op} has tensors on {NAME} and cpu")
    target = kwargs.get("device")
    leaves = target is not None and torch.device(target).type == "cpu"
    if op in _WAITING or leaves or (op is aten.copy_.default and not isinstance(args[0], Away)):
        waits.append(str(op))
    if target is not None:
        kwargs["device"] = torch.device("cpu")
    given = kwargs.get("generator")
    if given is not None and given is not GENERATOR:
        raise RuntimeError(f"Expected a {NAME!r} device type for generator but found {given.device.type!r}")
    if op._schema.name.removeprefix("aten::") in _RANDOM:
        return _random(op, args, kwargs)
    result = op(*tree_map(_raw, args), **tree_map(_raw, kwargs))
    if leaves or op is aten.equal.default:
        return result
    return result if op is aten.copy_.default and result is args[0] else _wrapped(result, own)


def _random(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation that draws from the device's generator, whose default is not the CPU's."""
    held = torch.get_rng_state()
    torch.set_rng_state(GENERATOR.get_state())
    try:
        result = op(*tree_map(_raw, args), **tree_map(_raw, {**kwargs, "generator": None} if kwargs else {}))
        GENERATOR.set_state(torch.get_rng_state())
    finally:
        torch.set_rng_state(held)
    return _wrapped(result, [each for each in args if isinstance(each, Away)])


def _wrapped(result: Any, own: Iterable[Away]) -> Any:
    """The result on the device; an operation in place returns its own argument."""
    known = {id(each.raw): each for each in own}

    def wrap(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return known[id(value)] if id(value) in known else Away(value)

    return tree_map(wrap, result)


def _raw(value: Any) -> Any:
    return value.raw if isinstance(value, Away) else value


def _make(op: Any, *args: Any, **kwargs: Any) -> Any:
    """An operation without a tensor of the device among its arguments, such as ``torch.empty``."""
    return _compute(op, *args, **{**kwargs, "device": None} if "device" in kwargs else kwargs)


_setup: Callable[..., None] = vars(backend_registration)["_setup_privateuseone_for_python_backend"]
_setup(NAME, backend_module=Module())
_LIBRARY = torch.library.Library("_", "IMPL")
_LIBRARY.fallback(_make, "PrivateUse1")
DEVICE = torch.device(NAME, 0)


def _through_the_host(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.tensor`, which skips the dispatch of subclasses while it copies to a device."""

    def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        found = data if isinstance(data, Tensor) and device is None else make(data, *args, **kwargs)
        return found if device is None else found.to(device)

    return made


torch.tensor = _through_the_host(torch.tensor)
