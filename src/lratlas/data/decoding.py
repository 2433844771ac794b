"""Image files to bytes of pixels, decoded once and kept in one file for the next time."""

import hashlib
import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lratlas.data.archives import Archive, labelled, opened
from lratlas.data.arrays import NAMES
from lratlas.data.images import ImageData
from lratlas.data.paths import home_expanded
from lratlas.errors import DataError

_GREY = frozenset({"1", "L", "LA"})
_MODES = _GREY | {"P", "RGB", "RGBA", "CMYK", "YCbCr"}  # eight bits a channel
_FORMAT = "1"  # of the kept file; another number makes all of them anew


def read_image_files(path: Path, *, title: str) -> ImageData:
    """Read an image folder or a zip file, decoding its images if that was not done before.

    Images are grey if all are, and RGB otherwise; transparency is dropped.

    Args:
        path: The folder or zip file, see `lratlas.data.archives.labelled` for its layout.
        title: Name of the result.

    Raises:
        DataError: The layout is another one, an image cannot be decoded, or one differs from the others in size.
    """
    with opened(path) as archive:
        kept = cache_folder() / f"{path.stem}-{_hash(_FORMAT.encode(), archive.stamp.encode())[:16]}.safetensors"
        data = _read_kept(kept, title)
        if data is None:
            data = _decoded(archive, title)
            _keep(kept, data)
        return data


def cache_folder() -> Path:
    """Where decoded images and the like go: ``LRATLAS_CACHE``, or ``lratlas`` in ``XDG_CACHE_HOME`` or ``~/.cache``."""
    given = os.environ.get("LRATLAS_CACHE")
    if given:
        return home_expanded(given)
    return home_expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "lratlas"


def _decoded(archive: Archive, title: str) -> ImageData:
    files = labelled(archive)
    names = [name for name, _ in chain(files.train, files.test)]
    images = torch.from_numpy(_pixels(archive, names))
    labels = torch.tensor([label for _, label in chain(files.train, files.test)])
    count = len(files.train)
    return ImageData(
        name=title,
        train=(images[:count], labels[:count]),
        test=(images[count:], labels[count:]),
        classes=files.classes,
    )


def _pixels(archive: Archive, names: Sequence[str]) -> NDArray[np.uint8]:
    """All images, [n, 1, H, W] if they are grey, else [n, 3, H, W]."""
    first, grey = _decode(archive, names[0])
    pixels = np.empty((len(names), 3, *first.shape[:2]), np.uint8)
    for row, name in enumerate(names):
        image, without_colour = _decode(archive, name)
        if image.shape != first.shape:
            raise DataError(
                f"{archive.path}: image {name} has {_size(image)} pixels, but {names[0]} has {_size(first)};"
                " all must have one size."
            )
        pixels[row] = image.transpose(2, 0, 1)
        grey = grey and without_colour
    return pixels[:, :1].copy() if grey else pixels


def _decode(archive: Archive, name: str) -> tuple[NDArray[np.uint8], bool]:
    """An image as RGB, [H, W, 3], and whether it has no colour."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(archive.read(archive.files[name]))) as image:
            mode = image.mode
            if mode in _MODES:
                return np.asarray(image.convert("RGB")), mode in _GREY
    except Exception as error:  # damaged files make decoders fail in many ways
        raise DataError(f"{archive.path}: image {name} cannot be decoded ({_reason(error)}).") from error
    raise DataError(f"{archive.path}: image {name} is of mode {mode}; it must have 8 bits a channel.")


def _size(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(" <_io")[0].rstrip(".") or type(error).__name__


def _tensors(data: ImageData) -> dict[str, Tensor]:
    parts = (*data.train, *data.test)
    return {name: tensor.contiguous() for name, tensor in zip(NAMES, parts, strict=True)}


def _keep(path: Path, data: ImageData) -> None:
    """Write the kept file, whole or not at all; without it, decoding is only done again."""
    tensors = _tensors(data)
    classes = json.dumps(data.classes)
    metadata = {"classes": classes, "checksum": _checksum(tensors, classes)}
    temporary = path.parent / f".lratlas-{uuid4().hex}"
    try:
        with suppress(OSError, SafetensorError):
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, temporary, metadata)
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _read_kept(path: Path, title: str) -> ImageData | None:
    """What was kept, or None if it is not there or is damaged."""
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
