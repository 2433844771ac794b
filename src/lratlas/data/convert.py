"""Convert a user's numbers to tensors: arrays, lists, frames and columns of any type; other values are reported."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lratlas.errors import TaskError, first_line


def labels_of(part: Tensor) -> Tensor:
    """Convert targets for losses: booleans and whole numbers become int64; large byte masks stay bytes."""
    is_mask = part.dtype == torch.uint8 and part.dim() > 1
    return part if part.is_floating_point() or part.is_complex() or is_mask else part.long()


def is_number(value: object) -> bool:
    """Whether a value is a number of Python or NumPy, including booleans."""
    return isinstance(value, bool | int | float | np.bool_ | np.number)


def tensor_of(name: str, given: Any, what: str) -> Tensor:
    """A tensor on the host that may share memory with the given data; it is never written to."""
    try:
        tensor = from_any(given)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TaskError(
            f"{name} must hold tensors, arrays or frames of numbers; the {what} are {type(given).__name__}:"
            f" {first_line(error).rstrip('.')}."
        ) from error
    # Boolean columns, for example from pandas.get_dummies, are features.
    is_frame = hasattr(given, "to_numpy") and what.startswith("inputs")
    return tensor.to(torch.get_default_dtype()) if is_frame and tensor.dtype == torch.bool else tensor


def from_any(given: Any) -> Tensor:
    """Convert numbers of any kind to a tensor.

    Raises:
        ValueError: The data contain other values, or are not supported; the message ends "the ... are X: ".
    """
    if isinstance(given, Tensor):
        return _from_tensor(given)
    if isinstance(given, Dataset) or is_image(given):
        raise ValueError(_IMAGE if is_image(given) else "a data set, which must hold the inputs and the targets")
    if hasattr(given, "toarray"):
        raise ValueError("sparse; pass .toarray()")
    if hasattr(given, "to_numpy"):
        return _from_array(_from_frame(given))
    if isinstance(given, list | tuple):
        return _from_list(cast("Sequence[Any]", given))
    return _from_array(np.asanyarray(given))


def _from_tensor(given: Tensor) -> Tensor:
    """A plain tensor on the host, without a gradient and of a dtype that PyTorch computes with."""
    if given.layout != torch.strided or given.is_nested:
        raise ValueError("nested; pad it to one shape" if given.is_nested else "sparse; pass .to_dense()")
    if given.is_quantized:
        raise ValueError("quantized; pass .dequantize()")
    if given.device.type == "meta":
        raise ValueError("on the device meta, without values")
    tensor = given.detach().cpu().resolve_conj().resolve_neg()
    tensor = tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)
    if tensor.dtype == torch.uint64 and tensor.numel() and int(tensor.view(torch.int64).min()) < 0:
        raise ValueError("unsigned numbers of 2^63 or more")
    # PyTorch can store the first three dtypes but supports almost no operations on them.
    wider = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}
    is_byte_float = tensor.is_floating_point() and tensor.element_size() == 1
    return tensor.float() if is_byte_float else tensor.to(wider.get(tensor.dtype, tensor.dtype))


def _from_list(given: Sequence[Any]) -> Tensor:
    if any(is_image(item) for item in given[:1]):
        raise ValueError(_IMAGE)
    if any(isinstance(item, Tensor) for item in given):
        try:
            return torch.stack([from_any(item) for item in given])
        except RuntimeError as error:
            raise ValueError("tensors of different shapes or types; pad them to one shape") from error
    try:
        array = np.array(given)
    except ValueError as error:  # NumPy's message is about array elements
        raise ValueError("items of different shapes; pad them to one shape") from error
    return _from_array(array)


def _from_array(array: Any) -> Tensor:
    """Convert an array, sharing its memory if PyTorch can use it and write to it."""
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            raise ValueError("masked; fill the masked values, or leave these samples out")
        array = array.data
    array = np.asarray(array)
    if array.dtype.kind == "O" and array.ndim:
        array = _from_objects(array)
    if array.dtype.kind not in "biufc":
        raise ValueError(_ODD.get(array.dtype.kind, "not numbers"))
    if array.dtype == np.longdouble and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    is_plain = array.flags.writeable and all(step >= 0 and step % array.itemsize == 0 for step in array.strides)
    return _from_tensor(torch.from_numpy(array if is_plain else array.copy()))


def _from_objects(array: Any) -> Any:
    """The numbers in an array of Python objects."""
    items = array.ravel().tolist()
    if all(isinstance(item, np.ndarray) for item in items):
        if len({item.shape for item in items}) > 1:
            raise ValueError("arrays of different shapes; pad them to one shape")
        return np.stack(items).reshape(*array.shape, *items[0].shape)
    if any(_is_missing(item) for item in items):
        raise ValueError("missing values; fill them, or leave these samples out")
    if not all(is_number(item) for item in items):
        raise ValueError("not numbers; encode them first")
    return np.array(items).reshape(array.shape)


def _is_missing(value: object) -> bool:
    return value is None or type(value).__name__ in {"NAType", "NaTType"}


_IMAGE = "a PIL image; convert images to tensors, such as with torchvision.transforms.ToTensor()"
_ODD = {
    "V": "a structured array; pass a dictionary of its fields",
    "U": "text; encode it first",
    "S": "text; encode it first",
    "M": "dates; encode them as numbers first",
    "m": "durations; encode them as numbers first",
}


def is_image(value: object) -> bool:
    """Whether a value is a Pillow image, which is not converted to an array yet."""
    return type(value).__module__.startswith("PIL.")


def _from_frame(frame: Any) -> Any:
    """The numbers of a pandas or Polars frame or series, [n, columns] or [n]."""
    columns = list(getattr(frame, "columns", ()))
    if len(columns) != len({*columns}) or not columns:
        return _from_column(frame)
    made, odd = dict[str, Any](), list[str]()
    for column in columns:
        try:
            made[str(column)] = _from_column(frame[column])
        except ValueError as error:
            odd.append(f"column {column}: {error}")
    if odd:
        raise ValueError(odd[0] + (f" ({len(odd)} such columns)" if odd[1:] else ""))
    kinds = {array.dtype for array in made.values()}
    # One dtype for all columns, the frame's own if possible, so that floats stay float32.
    return np.asarray(frame.to_numpy()) if len(kinds) == 1 else np.stack([*made.values()], 1)


def _from_column(column: Any) -> Any:
    array = np.asarray(column.to_numpy())
    array = _from_objects(array) if array.dtype.kind == "O" and array.ndim else array
    if array.dtype.kind not in "biuf":
        raise ValueError(_ODD.get(array.dtype.kind, "not numbers; encode them first"))
    return array
