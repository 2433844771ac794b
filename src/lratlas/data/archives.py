"""Image files in a folder or a zip file, one sub-folder per class: which there are, and what class each is."""

import os
import re
import zipfile
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from lratlas.data.images import first_names
from lratlas.errors import DataError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
)
ZIP_ERRORS = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged zip file may raise; NotImplementedError, of a version that is not known, is a RuntimeError."""
ANNOTATIONS = "val/val_annotations.txt"  # Tiny ImageNet: file name and class, then a box, in columns
_TEST_FOLDERS = ("test", "val")
_HIDDEN = (".", "__MACOSX", "Thumbs.db", "desktop.ini")  # how names begin that systems write unasked
_TINY_IMAGENET = re.compile(r"(wnids|words)\.txt|train/[^/]+/[^/]+_boxes\.txt|test/images/[^/]+|" + ANNOTATIONS)
"""What Tiny ImageNet has besides its labelled images."""

Listing = Mapping[str, str]
"""File names below train/, test/ or val/ to their names in the folder or zip file."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An open folder or zip file of images.

    Attributes:
        path: The folder or file.
        files: Names of all files, from the folder that holds train/ downwards, to the names by which they are read.
        folders: Names of folders, from the same one downwards; those of a zip file only as far as it lists them.
        read: The content of a file.
        stamp: Changes whenever the path or a file's size or time of change does.
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
        test: The same for the test images.
    """

    classes: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    test: tuple[tuple[str, int], ...]


@contextmanager
def opened(path: Path) -> Generator[Archive]:
    """Open an image folder or a zip file; nothing is unpacked.

    Args:
        path: The folder or file.

    Raises:
        DataError: It is neither.
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


def labelled(archive: Archive) -> Labelled:
    """Sort image files into training and test set and classes.

    Training images lie in train/<class>/, test images in test/<class>/ or val/<class>/, at any depth; or, as in Tiny
    ImageNet's own layout, in val/images/ with their classes in val/val_annotations.txt.

    Raises:
        DataError: A set is empty, an image lies in no class folder, or a class has no training images.
    """
    train = _by_folder(archive, "train")
    if not train:
        raise DataError(f"{archive.path} has no images in train/<class>/; each class needs a folder of its own there.")
    test = _annotated(archive) if ANNOTATIONS in archive.files else _first_by_folder(archive)
    classes = tuple(sorted(set(train.values())))
    strange = sorted(set(test.values()) - set(classes))
    if strange:
        raise DataError(f"{archive.path} has test images of class {strange[0]!r}, but no training images of it.")
    label = {name: number for number, name in enumerate(classes)}
    return Labelled(classes=classes, train=_sorted(train, label), test=_sorted(test, label))


def left_out(archive: Archive, files: Labelled) -> list[str]:
    """What is there but is not read: a clause for files and one for class folders without images; none if all is read.

    Hidden files, and what Tiny ImageNet has besides its images, do not count.
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
        several = f"{len(unread):,} files are not read, since they are not images"
        kind = several if len(unread) > 1 else "1 file is not read, since it is not an image"
        places = " or ".join(f"{split}/<class>/" for split in sorted(splits))
        found.append(f"{kind} in {places} ({first_names(sorted(unread))})")
    if empty:
        kind = f"{len(empty):,} class folders have" if len(empty) > 1 else "1 class folder has"
        found.append(f"{kind} no images ({first_names(empty)})")
    return found


def _stamp(path: Path, name: str) -> str:
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); remove it or put it right.") from error
    return f"{name}/{stat.st_size}/{stat.st_mtime_ns}"


def _walk(folder: Path) -> tuple[list[str], list[str]]:
    """The files and the folders below a folder."""
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
    """Where the names are to start: below the one folder in which all files lie, unless that is train."""
    tops = {name.partition("/")[0] for name in names if not _is_hidden(name)}
    return "" if len(tops) != 1 or "train" in tops else f"{tops.pop()}/"


def _from_top(names: Sequence[str], top: str) -> Listing:
    """The names that are not hidden, without what they all begin with."""
    return {name.removeprefix(top): name for name in names if name.startswith(top) and not _is_hidden(name)}


def _by_folder(archive: Archive, split: str) -> dict[str, str]:
    """Images of train, test or val, to the names of their classes."""
    classes: dict[str, str] = {}
    for name in archive.files:
        parts = name.split("/")
        if parts[0] != split or PurePosixPath(name).suffix.lower() not in SUFFIXES:
            continue
        if len(parts) < 3:
            raise DataError(f"{archive.path}: image {name} lies in no class folder; it must be in {split}/<class>/.")
        classes[name] = parts[1]
    return classes


def _first_by_folder(archive: Archive) -> dict[str, str]:
    for split in _TEST_FOLDERS:
        found = _by_folder(archive, split)
        if found:
            return found
    raise DataError(f"{archive.path} has no test images; they must be in test/<class>/ or val/<class>/.")


def _annotated(archive: Archive) -> dict[str, str]:
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
            raise DataError(f"{archive.path}: {ANNOTATIONS} speaks of {columns[0]}, which is not in val/images/.")
        classes[name] = columns[1]
    if not classes:
        raise DataError(f"{archive.path}: {ANNOTATIONS} is empty; it must hold a line per test image.")
    return classes


def _sorted(classes: Mapping[str, str], label: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(((name, label[of]) for name, of in classes.items()), key=lambda item: (item[1], item[0])))
