"""The catalogue of data sets: names, places of their files, and downloads."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lratlas.errors import DataError, extra, meant
from lratlas.paths import expand_home


@dataclass(frozen=True, kw_only=True)
class Place:
    """A possible place of a data set.

    Attributes:
        path: File or folder, relative to the data root unless absolute.
        form: The format: ``cifar10``, ``cifar100``, ``idx``, ``images``.
        marker: For a folder, a pattern that must match a file in it; empty for a file.
        title: Title of this copy, if it differs from the data set's title.
    """

    path: str
    form: str
    marker: str = ""
    title: str | None = None


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file of the official distribution.

    Attributes:
        url: The published address.
        path: The target, relative to the data root.
        sha256: Its checksum.
    """

    url: str
    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set with a name in the catalogue.

    Attributes:
        name: The name that users type.
        title: For captions.
        places: The places to search, in this order.
        downloads: The files that ``fetch`` stores under the data root.
        package: A Debian package that contains it, if there is one.
    """

    name: str
    title: str
    places: tuple[Place, ...]
    downloads: tuple[Download, ...]
    package: str | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """A data set that was found.

    Attributes:
        path: File or folder.
        form: The format of the files.
        title: For captions.
    """

    path: Path
    form: str
    title: str


def data_root(root: str | Path | None = None) -> Path:
    """The folder to search for data sets.

    Args:
        root: The folder; if None, the environment variable ``LRATLAS_DATA``, else ``lratlas`` in the user's data
            folder (``XDG_DATA_HOME`` or ``~/.local/share``).
    """
    given = root or os.environ.get("LRATLAS_DATA")
    if given:
        return expand_home(given)
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return expand_home(base) / "lratlas"


def data_set(name: str) -> DataSet:
    """The data set of the given name.

    Raises:
        DataError: The name is unknown.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    raise DataError(f"There is no data set {name!r}{meant(name, CATALOGUE)}; choose one of {', '.join(CATALOGUE)}.")


def find(name: str, *, root: str | Path | None = None) -> Found | None:
    """Find a data set in the first of its places that exists.

    Args:
        name: Name of the data set.
        root: The data root, see `data_root`.

    Returns:
        The place, or None.

    Raises:
        DataError: The name is unknown.
    """
    entry, folder = data_set(name), data_root(root)
    for place in entry.places:
        path = folder / place.path
        if _is_there(path, place.marker):
            return Found(path=path, form=place.form, title=place.title or entry.title)
    return None


def locate(name: str, *, root: str | Path | None = None) -> Found:
    """Like `find`, but a missing data set is an error.

    Raises:
        DataError: The data set is missing; the message says how to get it.
    """
    found = find(name, root=root)
    if found is None:
        entry, folder = data_set(name), data_root(root)
        package = f", install the Debian package {entry.package}" if entry.package else ""
        raise DataError(
            f"{entry.title} is not in {folder}; run `lratlas data fetch {name}`{package}, {by_hand(entry, folder)},"
            " or name another folder with --data-root or LRATLAS_DATA."
        )
    return found


def by_hand(entry: DataSet, folder: Path) -> str:
    """How to install files without a network: a clause with the files and their target."""
    sources = {download.url.rpartition("/")[0]: None for download in entry.downloads}
    names = ", ".join(Path(download.path).name for download in entry.downloads)
    target = (folder / entry.downloads[0].path).parent
    return f"put {names} (from {', '.join(sources)}) into {target}"


def _is_there(path: Path, marker: str) -> bool:
    try:
        return any(path.glob(marker)) if marker else path.is_file()
    except OSError:  # no permission
        return False


def _archive(url: str, checksum: str) -> tuple[Download, ...]:
    return (Download(url=url, path=url.rpartition("/")[2], sha256=checksum),)


def _idx(folder: str) -> Place:
    return Place(path=folder, form="idx", marker="train-images-idx3-ubyte*")


def _idx_downloads(folder: str, url: str, checksums: tuple[str, str, str, str]) -> tuple[Download, ...]:
    kinds = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    names = [f"{kind}-ubyte.gz" for kind in kinds]
    return tuple(
        Download(url=f"{url}/{name}", path=f"{folder}/{name}", sha256=checksum)
        for name, checksum in zip(names, checksums, strict=True)
    )


_ALL = (
    DataSet(
        name="cifar10",
        title="CIFAR-10",
        places=(
            Place(path="cifar-10-batches-bin", form="cifar10", marker="*.bin"),
            Place(path="cifar-10-binary.tar.gz", form="cifar10"),
            Place(path="cifar10-jpeg.zip", form="images", title="CIFAR-10 (JPEG copy)"),
        ),
        downloads=_archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
    DataSet(
        name="cifar100",
        title="CIFAR-100",
        places=(
            Place(path="cifar-100-binary", form="cifar100", marker="*.bin"),
            Place(path="cifar-100-binary.tar.gz", form="cifar100"),
        ),
        downloads=_archive(
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ),
    ),
    DataSet(
        name="mnist",
        title="MNIST",
        places=(_idx("mnist"), _idx("MNIST/raw")),
        downloads=_idx_downloads(
            "mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            (
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
    ),
    DataSet(
        name="fashion-mnist",
        title="Fashion-MNIST",
        places=(_idx("fashion-mnist"), _idx("FashionMNIST/raw"), _idx("/usr/share/datasets/fashion-mnist")),
        downloads=_idx_downloads(
            "fashion-mnist",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
            (
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
        package="dataset-fashion-mnist",
    ),
    DataSet(
        name="tiny-imagenet",
        title="Tiny ImageNet",
        places=(
            Place(path="tiny-imagenet-200", form="images", marker="train"),
            Place(path="tiny-imagenet-200.zip", form="images"),
        ),
        downloads=_archive(
            "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
            "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
        ),
    ),
)

CATALOGUE: Mapping[str, DataSet] = MappingProxyType({entry.name: entry for entry in _ALL})
"""The data sets by name."""


TIMEOUT = 60  # seconds without a response
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Fetching:
    """The progress of a download.

    Attributes:
        file: The file's name.
        done: Number of received bytes.
        total: Size of the file in bytes, 0 if the server does not report it.
    """

    file: str
    done: int
    total: int


def fetch(
    name: str, *, root: str | Path | None = None, progress: Callable[[Fetching], None] | None = None
) -> tuple[Path, ...]:
    """Download a data set to the data root. Files that exist with the right checksum are not downloaded again.

    Args:
        name: Name of the data set.
        root: The data root, see `lratlas.data.sources.data_root`.
        progress: Called from time to time with the progress.

    Returns:
        The files, each matching its checksum in the catalogue.

    Raises:
        DataError: The data set is unknown, it cannot be downloaded or written, or a checksum is wrong.
        MissingLibrary: The extra ``images`` is not installed.
    """
    entry, folder = data_set(name), data_root(root)
    return tuple(_fetch_file(entry, download, folder, progress) for download in entry.downloads)


def _fetch_file(entry: DataSet, download: Download, folder: Path, progress: Callable[[Fetching], None] | None) -> Path:
    with extra("images"):
        import pooch
        from requests import RequestException

    pooch.get_logger().setLevel("ERROR")  # it would log every file
    target = folder / download.path
    bar = _Bar(target.name, progress) if progress else False
    downloader: Any = pooch.HTTPDownloader  # its annotation is narrower than its documentation
    try:
        pooch.retrieve(
            download.url,
            known_hash=f"sha256:{download.sha256}",
            fname=target.name,
            path=target.parent,
            downloader=downloader(progressbar=bar, chunk_size=_CHUNK, timeout=TIMEOUT),
        )
    except RequestException as error:
        raise DataError(
            f"{download.url} cannot be downloaded ({_reason(error)}); without a network, {by_hand(entry, folder)}."
        ) from error
    except ValueError as error:
        raise DataError(
            f"The download from {download.url} does not have the SHA-256 {download.sha256} and was deleted; try"
            f" again, or {by_hand(entry, folder)}."
        ) from error
    except OSError as error:
        raise DataError(f"{target} cannot be written ({error.strerror or error}); choose another data root.") from error
    return target


class _Bar:
    """A progress bar for pooch, which sets ``total`` and calls the three methods."""

    def __init__(self, file: str, told: Callable[[Fetching], None]) -> None:
        self.total = 0
        self._file, self._told, self._done = file, told, 0

    def update(self, count: int) -> None:
        self._done += count
        # pooch counts whole chunks, including the last one.
        self._told(Fetching(file=self._file, done=min(self._done, self.total or self._done), total=self.total))

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        """Nothing to do: the bar belongs to the caller."""


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answered {response.status_code}"
    return "no connection" if "onnection" in type(error).__name__ else type(error).__name__
