"""A cache of images that take long to read or decode, in one file each."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lratlas.data.images import NAMES, ImageData
from lratlas.errors import DataError
from lratlas.files import write_file
from lratlas.paths import cache_folder

_FORMAT = "2"  # of the file; another number invalidates all cached files


def load_or_make(make: Callable[[], ImageData], *, title: str, stem: str, stamp: str) -> ImageData:
    """Load the images from the cache; if they are missing or damaged, make and cache them.

    Args:
        make: Reads or decodes the images.
        title: Name of the result.
        stem: Prefix of the file's name.
        stamp: Identifies the inputs of the images; another stamp invalidates the file.

    Raises:
        DataError: Raised by ``make``.
    """
    path = cache_folder() / f"{stem}-{_hash(_FORMAT.encode(), stamp.encode())[:16]}.safetensors"
    data = _read_cached(path, title)
    if data is None:
        data = make()
        _write(path, data)
    return data


def _write(path: Path, data: ImageData) -> None:
    """Write the file; if this fails, the images are made again next time."""
    tensors = {name: tensor.contiguous() for name, tensor in zip(NAMES, (*data.train, *data.test), strict=True)}
    classes = json.dumps(data.classes)
    metadata = {"classes": classes, "checksum": _checksum(tensors, classes)}
    with suppress(OSError, SafetensorError):
        write_file(path, save(tensors, metadata))


def _read_cached(path: Path, title: str) -> ImageData | None:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in NAMES}
        if metadata["checksum"] != _checksum(tensors, metadata["classes"]):
            return None
        train_images, train_labels, test_images, test_labels = (tensors[name] for name in NAMES)
        return ImageData(
            name=title,
            train=(train_images, train_labels),
            test=(test_images, test_labels),
            classes=tuple(json.loads(metadata["classes"])),
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, DataError):
        return None


def _checksum(tensors: dict[str, Tensor], classes: str) -> str:
    return _hash(classes.encode(), *(tensors[name].numpy().data.cast("B") for name in NAMES))


def _hash(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
