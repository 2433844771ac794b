"""A web server on this machine that stands for the places of publication."""

import hashlib
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lratlas.data.sources import DataSet, Download, Place


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Generator[str]:
    """The URL under which a folder is served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def published(url: str, contents: dict[str, bytes]) -> DataSet:
    """A data set named own whose files should have these contents."""
    downloads = tuple(
        Download(url=f"{url}/{name}", path=f"own/{name}", sha256=hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    )
    return DataSet(
        name="own",
        title="Own data",
        places=(Place(path="own", form="images", marker="*"),),
        downloads=downloads,
    )
