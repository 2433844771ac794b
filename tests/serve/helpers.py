"""A served page and how the tests speak to it."""

import http.client
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from lratlas.serve import LiveServer


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: str


def ask(url: str, path: str | None = None, *, method: str = "GET", body: str | None = None, **headers: str) -> Reply:
    """The reply to one request; ``path`` as it stands, in place of the URL's."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    try:
        connection.request(method, place.path if path is None else path, body=body, headers=headers)
        reply = connection.getresponse()
        return Reply(reply.status, dict(reply.getheaders()), reply.read().decode())
    finally:
        connection.close()


@contextmanager
def answering(server: LiveServer) -> Generator[str]:
    """The address of a server that answers meanwhile."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()
