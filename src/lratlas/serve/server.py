"""The server of a live page: the standard library's, read-only, with limits on how long and how many it answers."""

import ipaddress
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from lratlas.errors import SpecError, first_line
from lratlas.serve.answers import HEADERS, RETRY, Answer, answer
from lratlas.serve.live import LivePage

PATIENCE = 10.0  # seconds without a byte from or to a client
_VISITORS = 32  # answered at once; more are turned away
_CHUNK = 65536  # bytes, each so many within the patience
_HTTP_PORT = 80  # browsers leave it out


class LiveServer(ThreadingTCPServer):
    """Serves one live page; ``serve_forever`` answers until ``shutdown``, and ``with`` closes it.

    Attributes:
        url: The whole address of the page, with its token.
        to_others: Whether other machines can reach it.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = _VISITORS

    def __init__(
        self, *, render: Callable[[], str], version: Callable[[], str], host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """Listen, without answering yet.

        Args:
            render: Makes the page, in HTML; called again when the version has changed.
            version: A short text that changes with what the page shows; asked for often.
            host: The name or address to listen on; ``0.0.0.0`` for all of this machine.
            port: The port; 0 for any free one.

        Raises:
            SpecError: The host is not this machine's, or the port is taken or cannot be had.
        """
        self._page, token = LivePage(render=render, version=version), secrets.token_urlsafe(24)
        self._places = threading.BoundedSemaphore(_VISITORS)
        answered = partial(answer, page=self._page, token=token, served_as=self._is_served_as)
        try:
            self.address_family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            super().__init__((str(place[0]), port), partial(_Handler, answered))
        except (OSError, OverflowError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise SpecError(
                f"Port {port} of {host!r} cannot be listened on: {reason}; the host must be this machine's, and the"
                " port free, from 0 (any free one) to 65535."
            ) from error
        address = ipaddress.ip_address(str(self.server_address[0]).partition("%")[0])
        self._everywhere, self.to_others = address.is_unspecified, not address.is_loopback
        name = host.lower()
        if self._everywhere:
            name = "127.0.0.1" if self.address_family == socket.AF_INET else "::1"
        name = f"[{name}]" if ":" in name else name
        self._port = int(self.server_address[1])
        self._names = {name, "127.0.0.1", "localhost"}
        self.url = f"http://{name}:{self._port}/{token}/"

    def _is_served_as(self, host: str) -> bool:
        name = host.lower().removesuffix(f":{self._port}")
        if name == host.lower() and self._port != _HTTP_PORT:
            return False
        # An address, unlike a name, cannot be pointed here by somebody else.
        here = self._everywhere and (name == socket.gethostname().lower() or _is_address(name))
        return here or name in self._names

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, or turn away where too many are being answered."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, then make room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away or were too slow."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One request on one connection."""

    timeout = PATIENCE

    def __init__(self, answered: Callable[..., Answer], *connection: Any) -> None:
        self._answered = answered
        super().__init__(*connection)

    def parse_request(self) -> bool:
        """Answer every request, whatever its method, once it is read; nothing is left for methods of that name."""
        if super().parse_request():
            hosts = self.headers.get_all("Host", [])
            self._send(self._answered(method=self.command, hosts=hosts, path=self.path))
        return False

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is not a request, in the same way as any other."""
        status = HTTPStatus(code)
        self._send(Answer(status, f"{message or explain or status.phrase}\n"))

    def _send(self, answer: Answer) -> None:
        body = answer.body.encode()
        self.send_response(answer.status)
        for name, value in (HEADERS | {"Content-Type": answer.kind, "Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", str(RETRY))
        self.end_headers()
        if self.command == "HEAD":
            return
        # Piece by piece: the patience with a slow reader begins anew with each.
        for start in range(0, len(body), _CHUNK):
            self.wfile.write(body[start : start + _CHUNK])

    def version_string(self) -> str:
        """What the Server header says: not which Python this is."""
        return "lratlas"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """Say nothing."""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
