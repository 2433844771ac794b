"""One way to images, from a data set's name or a path."""

from pathlib import Path

from lratlas.data.arrays import read_arrays
from lratlas.data.binary import CIFAR, DIGITS, FASHION, read_cifar, read_idx
from lratlas.data.catalogue import CATALOGUE, Found, locate
from lratlas.data.decoding import read_image_files
from lratlas.data.images import ImageData, missing_classes
from lratlas.errors import DataError
from lratlas.notices import LOG
from lratlas.paths import home_expanded

_FORMS = "an image folder, a .zip file of images, or arrays in an .npz or .safetensors file"


def read_images(source: str, *, root: str | Path | None = None) -> ImageData:
    """Read a labelled set of images into memory.

    A warning of the logger ``lratlas`` says which files and folders are not read, and which classes have no images.

    Args:
        source: A name of the catalogue (``cifar10``, ``cifar100``, ``mnist``, ``fashion-mnist``, ``tiny-imagenet``),
            or a path: an image folder or zip file with train/ and test/ (or val/), each holding one folder per class,
            or an .npz or .safetensors file with the arrays that `lratlas.data.arrays.read_arrays` describes. A folder
            that is called like a data set is read as ``./name``.
        root: The data root, see `lratlas.data.catalogue.data_root`; only names are looked for there.

    Raises:
        DataError: There is no such data set or path, or the data are damaged or of another format.
    """
    data = _read(source, root)
    if missing := missing_classes(data):
        LOG.warning("%s: %s.", source, "; ".join(missing))
    return data


def _read(source: str, root: str | Path | None) -> ImageData:
    if source in CATALOGUE:
        return _read_found(source, locate(source, root=root))
    path = home_expanded(source)
    suffix = path.suffix.lower()
    if path.is_dir() or (path.is_file() and suffix == ".zip"):
        return read_image_files(path, title=path.stem)
    if path.is_file() and suffix in {".npz", ".safetensors"}:
        return read_arrays(path)
    if path.exists():
        raise DataError(f"{source} is no kind of data that can be read; allowed are {_FORMS}.")
    raise DataError(f"There is no data set or path {source!r}; give one of {', '.join(CATALOGUE)}, or {_FORMS}.")


def _read_found(name: str, found: Found) -> ImageData:
    if found.form in CIFAR:
        return read_cifar(found.path, layout=CIFAR[found.form], title=found.title)
    if found.form == "idx":
        return read_idx(found.path, classes=FASHION if name == "fashion-mnist" else DIGITS, title=found.title)
    return read_image_files(found.path, title=found.title)
