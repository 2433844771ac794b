"""Read images and labels from archives, array files and compressed pictures."""

import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lratlas.data.cache import load_or_make
from lratlas.data.images import NAMES, ImageData, Pair, check_pair, first_names
from lratlas.errors import DataError
from lratlas.notices import LOG
from lratlas.paths import check_regular

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
)
ZIP_ERRORS = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""Errors from damaged zip files; NotImplementedError, for an unknown version, is a RuntimeError."""
ANNOTATIONS = "val/val_annotations.txt"  # Tiny ImageNet: file name and class, then a box, in columns
_TEST_FOLDERS = ("test", "val")
_HIDDEN = (".", "__MACOSX", "Thumbs.db", "desktop.ini")  # prefixes of files that operating systems create
_TINY_IMAGENET = re.compile(r"(wnids|words)\.txt|train/[^/]+/[^/]+_boxes\.txt|test/images/[^/]+|" + ANNOTATIONS)
"""Files of Tiny ImageNet other than its labelled images."""

Listing = Mapping[str, str]
"""Maps file names below train/, test/ or val/ to their names in the folder or zip file."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An open folder or zip file of images.

    Attributes:
        path: The folder or file.
        files: Maps file names, relative to the folder that contains train/, to the names to read them by.
        folders: Names of folders, relative to the same folder; for a zip file, only those that it lists.
        read: Returns the content of a file.
        stamp: Changes whenever the path or a file's size or modification time changes.
    """

    path: Path
    files: Listing
    folders: tuple[str, ...]
    read: Callable[[str], bytes]
    stamp: str


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Image files with their classes.

    Attributes:
        classes: Names of the classes in alphabetical order.
        train: Names of the training images and their labels, by class and name.
        test: Names of the test images and their labels, by class and name.
    """

    classes: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    test: tuple[tuple[str, int], ...]


@contextmanager
def open_archive(path: Path) -> Generator[Archive]:
    """Open an image folder or a zip file, without unpacking it.

    Args:
        path: The folder or file.

    Raises:
        DataError: The path is neither.
    """
    if path.is_dir():
        names, folders = _walk(path)
        top = _top(names)
        stamps = [_stamp(path / name, name) for name in names]
        yield Archive(
            path=path,
            files=_from_top(names, top),
            folders=tuple(_from_top(folders, top)),
            read=lambda name: (path / name).read_bytes(),
            stamp="\n".join([str(path.resolve()), *stamps]),
        )
        return
    try:
        file = zipfile.ZipFile(path)
    except ZIP_ERRORS as error:
        raise DataError(f"{path} is truncated or not a zip file ({error}).") from error
    with file:
        names = [info.filename for info in file.infolist() if not info.is_dir()]
        folders = [info.filename.rstrip("/") for info in file.infolist() if info.is_dir()]
        top = _top(names)
        yield Archive(
            path=path,
            files=_from_top(names, top),
            folders=tuple(_from_top(folders, top)),
            read=file.read,
            stamp=_stamp(path, str(path.resolve())),
        )


def label_files(archive: Archive) -> Labelled:
    """Sort image files into training and test set and classes.

    Training images are in train/<class>/, test images in test/<class>/ or val/<class>/, at any depth; or, as in Tiny
    ImageNet's layout, in val/images/ with their classes in val/val_annotations.txt.

    Raises:
        DataError: A set is empty, an image is not in a class folder, or a class has no training images.
    """
    train = _by_folder(archive, "train")
    if not train:
        raise DataError(f"{archive.path} has no images in train/<class>/; each class needs a separate folder there.")
    test = _read_annotations(archive) if ANNOTATIONS in archive.files else _first_by_folder(archive)
    classes = tuple(sorted(set(train.values())))
    strange = sorted(set(test.values()) - set(classes))
    if strange:
        raise DataError(f"{archive.path} has test images of class {strange[0]!r}, but no training images of it.")
    label = {name: number for number, name in enumerate(classes)}
    return Labelled(classes=classes, train=_sort_classes(train, label), test=_sort_classes(test, label))


def describe_skipped(archive: Archive, files: Labelled) -> list[str]:
    """Clauses for files that are not read and for class folders without images; empty if everything is read.

    Hidden files, and files of Tiny ImageNet other than its images, are not reported.
    """
    used = {name for name, _ in chain(files.train, files.test)}
    tiny = ANNOTATIONS in archive.files
    unread = [name for name in archive.files if name not in used and not (tiny and _TINY_IMAGENET.fullmatch(name))]
    splits = {"train"} if tiny else {name.partition("/")[0] for name in used}
    folders = {*archive.folders, *(name.rpartition("/")[0] for name in unread)}
    classes = {"/".join(name.split("/")[:2]) for name in folders if name.count("/") and name.split("/")[0] in splits}
    empty = sorted(classes - {"/".join(name.split("/")[:2]) for name in used})
    found = list[str]()
    if unread:
        several = f"{len(unread):,} files are skipped, because they are not images"
        kind = several if len(unread) > 1 else "1 file is skipped, because it is not an image"
        places = " or ".join(f"{split}/<class>/" for split in sorted(splits))
        found.append(f"{kind} in {places} ({first_names(sorted(unread))})")
    if empty:
        kind = f"{len(empty):,} class folders have" if len(empty) > 1 else "1 class folder has"
        found.append(f"{kind} no images ({first_names(empty)})")
    return found


def _stamp(path: Path, name: str) -> str:
    try:
        stat = check_regular(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); remove or fix it.") from error
    return f"{name}/{stat.st_size}/{stat.st_mtime_ns}"


def _walk(folder: Path) -> tuple[list[str], list[str]]:
    """The files and folders below a folder."""
    names, inner = list[str](), list[str]()
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(parent).relative_to(folder)
        names += [(below / name).as_posix() for name in files]
        inner += [(below / name).as_posix() for name in folders]
    return sorted(names), sorted(inner)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(_HIDDEN) for part in name.split("/"))


def _top(names: Sequence[str]) -> str:
    """The folder that names are relative to: the one folder that contains all files, unless it is train."""
    tops = {name.partition("/")[0] for name in names if not _is_hidden(name)}
    return "" if len(tops) != 1 or "train" in tops else f"{tops.pop()}/"


def _from_top(names: Sequence[str], top: str) -> Listing:
    """The names of files that are not hidden, without their common prefix."""
    return {name.removeprefix(top): name for name in names if name.startswith(top) and not _is_hidden(name)}


def _by_folder(archive: Archive, split: str) -> dict[str, str]:
    """Maps the images of train, test or val to the names of their classes."""
    classes: dict[str, str] = {}
    for name in archive.files:
        parts = name.split("/")
        if parts[0] != split or PurePosixPath(name).suffix.lower() not in SUFFIXES:
            continue
        if len(parts) < 3:
            raise DataError(f"{archive.path}: image {name} is in no class folder; it must be in {split}/<class>/.")
        classes[name] = parts[1]
    return classes


def _first_by_folder(archive: Archive) -> dict[str, str]:
    for split in _TEST_FOLDERS:
        found = _by_folder(archive, split)
        if found:
            return found
    raise DataError(f"{archive.path} has no test images; they must be in test/<class>/ or val/<class>/.")


def _read_annotations(archive: Archive) -> dict[str, str]:
    try:
        lines = archive.read(archive.files[ANNOTATIONS]).decode().splitlines()
    except ZIP_ERRORS as error:
        raise DataError(f"{archive.path}: {ANNOTATIONS} cannot be read ({error}); it must be text.") from error
    classes: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        columns = line.split("\t")
        if len(columns) < 2:
            raise DataError(f"{archive.path}: line {number} of {ANNOTATIONS} must hold a file name, a tab and a class.")
        name = f"val/images/{columns[0]}"
        if name not in archive.files:
            raise DataError(f"{archive.path}: {ANNOTATIONS} names {columns[0]}, which is not in val/images/.")
        classes[name] = columns[1]
    if not classes:
        raise DataError(f"{archive.path}: {ANNOTATIONS} is empty; it must have one line per test image.")
    return classes


def _sort_classes(classes: Mapping[str, str], label: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(((name, label[of]) for name, of in classes.items()), key=lambda item: (item[1], item[0])))


def read_arrays(path: Path) -> ImageData:
    """Read images and labels from an array file.

    The file contains ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``: bytes (uint8), [n, H, W],
    [n, H, W, C] or [n, C, H, W], and whole numbers from 0, [n]. With four axes, the shorter one of the second and the
    last axis is the channel axis. The class names are the labels.

    Args:
        path: The file, .npz (no pickled objects) or .safetensors.

    Raises:
        DataError: The file cannot be read, lacks an array, or has arrays that do not match.
    """
    arrays = _npz(path) if path.suffix.lower() == ".npz" else _safetensors(path)
    labels = {split: _labels(arrays[f"{split}_labels"], f"{path}, {split}_labels") for split in ("train", "test")}
    classes = int(labels["train"].max()) + 1 if len(labels["train"]) else 0
    if classes > len(labels["train"]):
        raise DataError(
            f"{path}, train_labels: label {classes - 1} is above the number of images; labels count from 0."
        )
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
                raise DataError(f"{path} is a single array; it must be an .npz file with {', '.join(NAMES)}.")
            _check_names(path, file.files)
            return {name: torch.from_numpy(np.ascontiguousarray(file[name])) for name in NAMES}
    except (*ZIP_ERRORS, TypeError, MemoryError) as error:  # from a header that promises more data than there is
        raise _unreadable(path, error) from error


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            _check_names(path, list(file.keys()))
            return {name: file.get_tensor(name) for name in NAMES}
    except (OSError, SafetensorError, MemoryError) as error:
        raise _unreadable(path, error) from error


def _check_names(path: Path, found: list[str]) -> None:
    missing = [name for name in NAMES if name not in found]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(sorted(found)) or 'nothing'}.")
    if others := sorted(set(found) - set(NAMES)):
        LOG.warning("%s: arrays with other names are ignored (%s).", path, first_names(others))


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = str(error).partition("\n")[0].rstrip(".")
    return DataError(
        f"{path} cannot be read as arrays of numbers ({reason}); it may be truncated or in another format."
    )


def _labels(labels: Tensor, where: str) -> Tensor:
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"{where} are {labels.dtype}; labels must be whole numbers.")
    return labels.long()


def _images(images: Tensor, where: str) -> Tensor:
    """Convert images to [n, C, H, W]."""
    if images.dim() == 3:
        return images.unsqueeze(1)
    if images.dim() != 4:
        raise DataError(f"{where} have shape {tuple(images.shape)}; allowed are [n, H, W], [n, H, W, C], [n, C, H, W].")
    first, last = images.shape[1], images.shape[3]
    if first == last:
        raise DataError(
            f"{where} have shape {tuple(images.shape)}, so it is unclear whether the channels come first or last;"
            " one of these two axes must be shorter than the other."
        )
    return images if first < last else images.permute(0, 3, 1, 2).contiguous()


_GREY = frozenset({"1", "L", "LA"})
_MODES = _GREY | {"P", "RGB", "RGBA", "CMYK", "YCbCr"}  # eight bits per channel


def read_image_files(path: Path, *, title: str) -> ImageData:
    """Read an image folder or a zip file; decoded images are cached.

    Images are grey if all of them are, otherwise RGB; transparency is dropped.

    Args:
        path: The folder or zip file, see `lratlas.data.archives.label_files` for its layout.
        title: Name of the result.

    Raises:
        DataError: The layout is unknown, an image cannot be decoded, or its size differs from the others.
    """
    with open_archive(path) as archive:
        if unread := describe_skipped(archive, label_files(archive)):
            LOG.warning("%s: %s.", path, "; ".join(unread))
        return load_or_make(partial(_decode_images, archive, title), title=title, stem=path.stem, stamp=archive.stamp)


def _decode_images(archive: Archive, title: str) -> ImageData:
    files = label_files(archive)
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
    """All images, [n, 1, H, W] if all are grey, else [n, 3, H, W]."""
    first, grey = _decode(archive, names[0])
    pixels = np.empty((len(names), 3, *first.shape[:2]), np.uint8)
    for row, name in enumerate(names):
        image, without_colour = _decode(archive, name)
        if image.shape != first.shape:
            raise DataError(
                f"{archive.path}: image {name} has {_size(image)} pixels, but {names[0]} has {_size(first)}; all"
                " images must have the same size."
            )
        pixels[row] = image.transpose(2, 0, 1)
        grey = grey and without_colour
    return pixels[:, :1].copy() if grey else pixels


def _decode(archive: Archive, name: str) -> tuple[NDArray[np.uint8], bool]:
    """An image as RGB, [H, W, 3], and whether it is grey."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(archive.read(archive.files[name]))) as image:
            mode = image.mode
            if mode in _MODES:
                return np.asarray(image.convert("RGB")), mode in _GREY
    except Exception as error:  # damaged files cause many kinds of decoder errors
        raise DataError(f"{archive.path}: image {name} cannot be decoded ({_reason(error)}).") from error
    raise DataError(f"{archive.path}: image {name} is of mode {mode}; it must have 8 bits per channel.")


def _size(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(" <_io")[0].rstrip(".") or type(error).__name__
