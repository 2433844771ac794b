"""A user's own arrays of images, in one .npz or .safetensors file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lratlas.data.archives import ZIP_ERRORS
from lratlas.data.images import ImageData, Pair, check_pair, first_names
from lratlas.errors import DataError
from lratlas.notices import LOG

NAMES = ("train_images", "train_labels", "test_images", "test_labels")


def read_arrays(path: Path) -> ImageData:
    """Read images and labels from a file of arrays.

    The file holds ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``: bytes (uint8), [n, H, W],
    [n, H, W, C] or [n, C, H, W], and whole numbers from 0, [n]. Of the second and the last axis of four, the shorter
    one is taken for the channels. Classes are named by their labels.

    Args:
        path: The file, .npz (no pickled objects) or .safetensors.

    Raises:
        DataError: It cannot be read, lacks an array, or the arrays do not fit together.
    """
    arrays = _npz(path) if path.suffix.lower() == ".npz" else _safetensors(path)
    labels = {split: _labels(arrays[f"{split}_labels"], f"{path}, {split}_labels") for split in ("train", "test")}
    classes = int(labels["train"].max()) + 1 if len(labels["train"]) else 0
    if classes > len(labels["train"]):
        raise DataError(f"{path}, train_labels: label {classes - 1} is above the number of images; count from 0.")
    pairs: dict[str, Pair] = {}
    for split, found in labels.items():
        where = f"{path}, {split}"
        pairs[split] = _images(arrays[f"{split}_images"], f"{where}_images"), found
        check_pair(*pairs[split], classes=classes, where=where)
    return ImageData(name=path.stem, train=pairs["train"], test=pairs["test"], classes=tuple(map(str, range(classes))))


def _npz(path: Path) -> Mapping[str, Tensor]:
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is a single array; an .npz file with {', '.join(NAMES)} is needed.")
            _check_names(path, file.files)
            return {name: torch.from_numpy(np.ascontiguousarray(file[name])) for name in NAMES}
    except (*ZIP_ERRORS, TypeError) as error:
        raise _unreadable(path, error) from error


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            _check_names(path, list(file.keys()))
            return {name: file.get_tensor(name) for name in NAMES}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _check_names(path: Path, found: list[str]) -> None:
    missing = [name for name in NAMES if name not in found]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(sorted(found)) or 'nothing'}.")
    if others := sorted(set(found) - set(NAMES)):
        LOG.warning("%s: arrays with other names are not read (%s).", path, first_names(others))


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = str(error).partition("\n")[0].rstrip(".")
    return DataError(
        f"{path} cannot be read as arrays of numbers ({reason}); it may be truncated or of another format."
    )


def _labels(labels: Tensor, where: str) -> Tensor:
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"{where} are {labels.dtype}; labels must be whole numbers.")
    return labels.long()


def _images(images: Tensor, where: str) -> Tensor:
    """Images as [n, C, H, W]."""
    if images.dim() == 3:
        return images.unsqueeze(1)
    if images.dim() != 4:
        raise DataError(f"{where} have shape {tuple(images.shape)}; allowed are [n, H, W], [n, H, W, C], [n, C, H, W].")
    first, last = images.shape[1], images.shape[3]
    if first == last:
        raise DataError(
            f"{where} have shape {tuple(images.shape)}, which does not show whether the channels come first or last;"
            " one of the two axes must be shorter."
        )
    return images if first < last else images.permute(0, 3, 1, 2).contiguous()
