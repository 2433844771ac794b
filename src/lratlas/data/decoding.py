"""Image files to bytes of pixels."""

import io
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lratlas.data.archives import Archive, labelled, left_out, opened
from lratlas.data.images import ImageData
from lratlas.data.kept import kept
from lratlas.errors import DataError
from lratlas.notices import LOG

_GREY = frozenset({"1", "L", "LA"})
_MODES = _GREY | {"P", "RGB", "RGBA", "CMYK", "YCbCr"}  # eight bits a channel


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
        if unread := left_out(archive, labelled(archive)):
            LOG.warning("%s: %s.", path, "; ".join(unread))
        return kept(partial(_decoded, archive, title), title=title, stem=path.stem, stamp=archive.stamp)


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
