"""Readers of each data set: from the published files to images and labels."""

import gzip
import io
import math
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from lratlas.data.archives import read_arrays, read_image_files
from lratlas.data.images import ImageData, Pair, check_pair, missing_classes
from lratlas.data.sources import CATALOGUE, Found, locate
from lratlas.errors import DataError
from lratlas.notices import LOG
from lratlas.paths import check_regular, expand_home

_FORMS = "an image folder, a .zip file of images, or arrays in an .npz or .safetensors file"


def read_images(source: str, *, root: str | Path | None = None) -> ImageData:
    """Read a set of labelled images into memory.

    A warning of the logger ``lratlas`` reports files and folders that are not read, and classes without images.

    Args:
        source: A name in the catalogue (``cifar10``, ``cifar100``, ``mnist``, ``fashion-mnist``, ``tiny-imagenet``),
            or a path: an image folder or zip file with train/ and test/ (or val/), each with one folder per class,
            or an .npz or .safetensors file with the arrays that `lratlas.data.archives.read_arrays` describes. Use
            ``./name`` for a folder with the name of a data set.
        root: The data root, see `lratlas.data.sources.data_root`; only used for names.

    Raises:
        DataError: The data set or path does not exist, or the data are damaged or in an unknown format.
    """
    data = _read_source(source, root)
    if missing := missing_classes(data):
        LOG.warning("%s: %s.", source, "; ".join(missing))
    return data


def _read_source(source: str, root: str | Path | None) -> ImageData:
    if source in CATALOGUE:
        return _read_files(source, locate(source, root=root))
    path = expand_home(source)
    suffix = path.suffix.lower()
    if path.is_dir() or (path.is_file() and suffix == ".zip"):
        return read_image_files(path, title=path.stem)
    if path.is_file() and suffix in {".npz", ".safetensors"}:
        return read_arrays(path)
    if path.exists():
        raise DataError(f"{source} cannot be read as data; allowed are {_FORMS}.")
    raise DataError(f"There is no data set or path {source!r}; choose one of {', '.join(CATALOGUE)}, or pass {_FORMS}.")


def _read_files(name: str, found: Found) -> ImageData:
    if found.form in CIFAR:
        return read_cifar(found.path, layout=CIFAR[found.form], title=found.title)
    if found.form == "idx":
        return read_idx(found.path, classes=FASHION if name == "fashion-mnist" else DIGITS, title=found.title)
    return read_image_files(found.path, title=found.title)


_PIXELS = (3, 32, 32)
_UNSIGNED_BYTE = 8  # element type in the IDX format
# tarfile raises a TypeError for a truncated gzip header.
_UNPACKING = (OSError, EOFError, TypeError, zlib.error, tarfile.TarError)


@dataclass(frozen=True, kw_only=True)
class Cifar:
    """The layout of a CIFAR data set: records of some label bytes and 3,072 pixels, red, green, blue.

    Attributes:
        train: Files of the training set.
        test: File of the test set.
        names: Text file with one class name per line.
        labels: Bytes before the pixels; the last one is the label.
    """

    train: tuple[str, ...]
    test: str
    names: str
    labels: int


CIFAR: Mapping[str, Cifar] = MappingProxyType(
    {
        "cifar10": Cifar(
            train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            test="test_batch.bin",
            names="batches.meta.txt",
            labels=1,
        ),
        # The coarse label comes first.
        "cifar100": Cifar(train=("train.bin",), test="test.bin", names="fine_label_names.txt", labels=2),
    }
)
DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def read_cifar(path: Path, *, layout: Cifar, title: str) -> ImageData:
    """Read CIFAR's binary distribution.

    Args:
        path: The folder, or the gzipped tar file, which is read without unpacking it.
        layout: One of ``CIFAR``.
        title: Name of the result.

    Raises:
        DataError: A file is missing, truncated or in another format, or a label is out of range.
    """
    wanted = (*layout.train, layout.test, layout.names)
    files = {name: _bytes(path / name) for name in wanted} if path.is_dir() else _from_tar(path, wanted)
    classes = tuple(files[layout.names].decode("ascii", "replace").split())
    if not classes:
        raise DataError(f"{path / layout.names} has no class names; it must have one per line.")
    pairs = {
        name: _records(files[name], path / name, labels=layout.labels, classes=len(classes)) for name in wanted[:-1]
    }
    sizes = {name: len(pairs[name][1]) for name in layout.train}
    if len(set(sizes.values())) > 1:
        counts = ", ".join(f"{name} holds {size} images" for name, size in sizes.items())
        raise DataError(f"{path}: {counts}; all must have the same number, so one is truncated.")
    images, labels = zip(*(pairs[name] for name in layout.train), strict=True)
    return ImageData(name=title, train=(torch.cat(images), torch.cat(labels)), test=pairs[layout.test], classes=classes)


def read_idx(folder: Path, *, classes: tuple[str, ...], title: str) -> ImageData:
    """Read the four IDX files of MNIST or of a data set in its format, each gzipped or not.

    Args:
        folder: The folder of the files.
        classes: Names of the classes.
        title: Name of the result.

    Raises:
        DataError: A file is missing, truncated or in another format, counts differ, or a label is out of range.
    """
    splits = {split: _idx_pair(folder, split, len(classes)) for split in ("train", "t10k")}
    return ImageData(name=title, train=splits["train"], test=splits["t10k"], classes=classes)


def _from_tar(path: Path, names: Sequence[str]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|gz") as tar:  # one pass: seeking back would unpack again
            for member in tar:
                name = Path(member.name).name
                content = tar.extractfile(member) if name in names else None
                if content is not None:
                    files[name] = content.read()
    except _UNPACKING as error:
        raise DataError(f"{path} is truncated or not a gzipped tar file ({_reason(error)}).") from error
    missing = [name for name in names if name not in files]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; it must be CIFAR's binary version.")
    return files


def _bytes(path: Path) -> bytes:
    try:
        check_regular(path)
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; put the file there, or the packed distribution next to it.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({_reason(error)}).") from error


def _records(data: bytes, path: Path, *, labels: int, classes: int) -> Pair:
    length = labels + math.prod(_PIXELS)
    if not data or len(data) % length:
        raise DataError(
            f"{path} has {len(data)} bytes, not a multiple of {length}; it is truncated or not CIFAR's binary version."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, length)
    images = torch.from_numpy(records[:, labels:].reshape(-1, *_PIXELS).copy())
    found = torch.from_numpy(records[:, labels - 1].astype(np.int64))
    check_pair(images, found, classes=classes, where=str(path))
    return images, found


def _idx_pair(folder: Path, split: str, classes: int) -> Pair:
    images = _idx_array(folder / f"{split}-images-idx3-ubyte", dimensions=3)
    path = folder / f"{split}-labels-idx1-ubyte"
    labels = torch.from_numpy(_idx_array(path, dimensions=1).astype(np.int64))
    pair = torch.from_numpy(images.copy()).unsqueeze(1), labels
    check_pair(*pair, classes=classes, where=str(path))
    return pair


def _idx_array(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    path, data = _unpack(path)
    start = 4 + 4 * dimensions
    wanted = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if data[:4] != wanted:
        raise DataError(
            f"{path} is not an IDX file of bytes in {dimensions} dimension(s):"
            f" it begins with {data[:4].hex()}, not {wanted.hex()}."
        )
    shape = [int(size) for size in np.frombuffer(data[4 : len(data[:start]) // 4 * 4], ">u4")]
    if len(shape) < dimensions or len(data) - start != math.prod(shape):
        raise DataError(
            f"{path} has {len(data)} bytes, but its header says {' x '.join(map(str, shape)) or 'none'} after"
            f" {start}; it is truncated or damaged."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _unpack(path: Path) -> tuple[Path, bytes]:
    """The plain or gzipped file that exists, and its unpacked content."""
    packed = path.with_name(f"{path.name}.gz")
    there = path if path.is_file() else packed
    if not there.is_file():
        raise DataError(f"{path.name} (or {packed.name}) is missing in {path.parent}; put it there.")
    data = _bytes(there)
    if there == path and data[:2] != b"\x1f\x8b":
        return there, data
    try:
        with gzip.open(io.BytesIO(data)) as file:
            return there, file.read()
    except _UNPACKING as error:
        raise DataError(f"{there} is truncated or not a gzip file ({_reason(error)}).") from error


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).partition("\n")[0].rstrip(".")
