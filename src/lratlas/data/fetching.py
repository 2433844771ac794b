"""Downloads of the data sets' official distributions, checked by their SHA-256."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lratlas.data.catalogue import DataSet, Download, by_hand, data_root, data_set
from lratlas.errors import DataError

TIMEOUT = 60  # seconds without an answer
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Fetching:
    """How far a download is.

    Attributes:
        file: The file's name.
        done: Bytes that have come.
        total: Bytes of the file, 0 where the server does not say.
    """

    file: str
    done: int
    total: int


def fetch(
    name: str, *, root: str | Path | None = None, progress: Callable[[Fetching], None] | None = None
) -> tuple[Path, ...]:
    """Download a data set into the data root. Files that are there and right are not downloaded again.

    Args:
        name: Name of the data set.
        root: The data root, see `lratlas.data.catalogue.data_root`.
        progress: Told now and then how far it is.

    Returns:
        The files, each with the checksum that the catalogue gives.

    Raises:
        DataError: There is no such data set, it cannot be downloaded or written, or a checksum is wrong.
    """
    entry, folder = data_set(name), data_root(root)
    return tuple(_fetched(entry, download, folder, progress) for download in entry.downloads)


def _fetched(entry: DataSet, download: Download, folder: Path, progress: Callable[[Fetching], None] | None) -> Path:
    import pooch
    from requests import RequestException

    pooch.get_logger().setLevel("ERROR")  # it would announce every file
    target = folder / download.path
    bar = _Bar(target.name, progress) if progress else False
    downloader: Any = pooch.HTTPDownloader  # annotated more narrowly than documented
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
            f"{download.url} cannot be downloaded ({_reason(error)}); where there is no network,"
            f" {by_hand(entry, folder)}."
        ) from error
    except ValueError as error:
        raise DataError(
            f"What {download.url} sent does not have the SHA-256 {download.sha256} and was deleted; try again, or"
            f" {by_hand(entry, folder)}."
        ) from error
    except OSError as error:
        raise DataError(f"{target} cannot be written ({error.strerror or error}); name another data root.") from error
    return target


class _Bar:
    """What pooch takes for a progress bar: it sets ``total`` and calls the three methods."""

    def __init__(self, file: str, told: Callable[[Fetching], None]) -> None:
        self.total = 0
        self._file, self._told, self._done = file, told, 0

    def update(self, count: int) -> None:
        self._done += count
        # Whole chunks are counted, also the last one.
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
