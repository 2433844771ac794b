"""Serve the page of a study or a search to a browser, also during the run."""

import hmac
import ipaddress
import secrets
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, cast

from lratlas.errors import LRAtlasError, SpecError, first_line

_REST = 4.0  # a page is reused for this multiple of the time that it took to make


@dataclass(frozen=True)
class _Made:
    """A page, the version of its content, and the time until which it is reused."""

    text: str
    version: str
    until: float


class LivePage:
    """A page of the newest version, made by one thread at a time and once per version.

    Making a page may take seconds of a processor that the study also needs. So a page counts as the newest one for
    four times as long as it took to make.
    """

    def __init__(self, *, render: Callable[[], str], version: Callable[[], str]) -> None:
        """Set up without making a page.

        Args:
            render: Makes the page.
            version: Returns a short text that changes with the content of the page; called often.
        """
        self._render, self._version = render, version
        self._made: _Made | None = None
        self._lock = threading.Lock()

    def version(self) -> str:
        """The version of the page that ``text`` would return now; never waits for a page in progress."""
        made = self._made
        return made.version if made and time.monotonic() < made.until else self._version()

    def text(self) -> str:
        """The page; waits for a page in progress."""
        with self._lock:
            wanted = self.version()  # read before making the page: later changes are another version
            if self._made is None or wanted != self._made.version:
                began = time.monotonic()
                text = self._render()
                now = time.monotonic()
                self._made = _Made(text, wanted, now + _REST * (now - began))
            return self._made.text


TEXT, HTML = "text/plain; charset=utf-8", "text/html; charset=utf-8"
RETRY = 5  # seconds after which a browser asks again for a page that could not be made

# The page's policy, with requests to this server only; no page may embed it.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Answer:
    """A status, a body and its media type."""

    status: HTTPStatus
    body: str
    kind: str = TEXT


def answer(
    *, page: LivePage, token: str, served_as: Callable[[str], bool], method: str, hosts: Sequence[str], path: str
) -> Answer:
    """The answer to a request.

    Args:
        page: The served page.
        token: The first part of every path.
        served_as: Whether the page is served under this host and port.
        method: The request's method; only GET is accepted.
        hosts: The request's Host headers; there must be exactly one.
        path: The request's path, ``/TOKEN/`` for the page or ``/TOKEN/version``.
    """
    if method != "GET":
        return Answer(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET requests are allowed.\n")
    if len(hosts) != 1 or not served_as(hosts[0]):
        return Answer(HTTPStatus.FORBIDDEN, "Unknown host name.\n")
    _, given, rest = [*path.split("/", 2), "", ""][:3]
    if not hmac.compare_digest(given.encode(), token.encode()) or path != f"/{given}/{rest}":
        return _answer_unknown()
    try:
        if rest == "":
            return Answer(HTTPStatus.OK, page.text(), HTML)
        return Answer(HTTPStatus.OK, page.version()) if rest == "version" else _answer_unknown()
    except Exception as error:  # a study that is being written may be readable soon
        known = isinstance(error, LRAtlasError)
        reason = first_line(error) if known else f"{type(error).__name__}: {first_line(error)}"
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, _apology(reason), HTML)


def _answer_unknown() -> Answer:
    return Answer(HTTPStatus.NOT_FOUND, "Not found: use the complete address that was printed.\n")


def _apology(reason: str) -> str:
    """A page that gives the reason for the failure, and reloads."""
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="{RETRY}">
<title>Not available right now</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }}</style>
<h1>The page cannot be shown right now</h1>
<p>{escape(reason)}</p>
<p>This page reloads every {RETRY} seconds.</p>
</html>
"""


PATIENCE = 10.0  # seconds for a whole request, and without a byte from or to a client
_MADE, _WRITTEN = 300.0, 60.0  # seconds until an answer is made, and until it is written
_VISITORS, _OF_ONE = 32, 16  # concurrent connections, in total and from one address
_CHUNK = 65536  # bytes; each chunk has to be sent within the patience
_HTTP_PORT = 80  # browsers omit it


class _State(Enum):
    """What a connection is waited for, in the order in which connections are dropped when there is no room."""

    ASKING = 0
    WRITING = 1
    MAKING = 2  # not dropped: its thread would continue


@dataclass
class _Visit:
    """A connection: its address, its deadline, and its state."""

    peer: str
    until: float
    state: _State = _State.ASKING


class LiveServer(ThreadingTCPServer):
    """A server of one live page; ``serve_forever`` runs until ``shutdown``, and ``with`` closes it.

    Attributes:
        url: The full address of the page, with its token.
        to_others: Whether other machines can reach it.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = _VISITORS

    def __init__(
        self, *, render: Callable[[], str], version: Callable[[], str], host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """Start to listen, without answering yet.

        Args:
            render: Makes the page, in HTML; called again after the version changes.
            version: Returns a short text that changes with the content of the page; called often.
            host: The name or address to listen on; ``0.0.0.0`` for all addresses of this machine.
            port: The port; 0 for any free one.

        Raises:
            SpecError: The host is not this machine's, or the port is taken or not permitted.
        """
        self._page, token = LivePage(render=render, version=version), secrets.token_urlsafe(24)
        self._visits, self._lock = dict[Any, _Visit](), threading.Lock()
        answered = partial(answer, page=self._page, token=token, served_as=self._is_served_as)
        try:
            self.address_family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            super().__init__((str(place[0]), port), partial(_Handler, answered))
        except (OSError, OverflowError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise SpecError(
                f"Cannot listen on port {port} of {host!r}: {reason}. The host must be an address of this machine, and"
                " the port must be free and from 0 (any free port) to 65535."
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
        # Nobody else can point an address at this machine, unlike a name.
        here = self._everywhere and (name == socket.gethostname().lower() or _is_address(name))
        return here or name in self._names

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a new thread, or refuse if there are too many connections."""
        peer = str(client_address[0])
        with self._lock:
            welcome = self._make_room(peer)
            if welcome:
                self._visits[request] = _Visit(peer, time.monotonic() + PATIENCE)
        if welcome:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def _make_room(self, peer: str) -> bool:
        """Drop a connection that waits for its client, if this address or the server has too many."""
        counts = Counter(visit.peer for visit in self._visits.values())
        if counts[peer] < _OF_ONE and counts.total() < _VISITORS:
            return True
        crowd = peer if counts[peer] >= _OF_ONE else max(counts, key=lambda each: counts[each])
        idle = [each for each, visit in self._visits.items() if visit.peer == crowd and visit.state != _State.MAKING]
        idle.sort(key=lambda each: self._visits[each].state.value)  # the oldest one of a state first
        for request in idle[:1]:
            self._let_go(request)
        return bool(idle)

    def _let_go(self, request: Any) -> None:
        del self._visits[request]
        with suppress(OSError):  # ends its thread, which waits for bytes
            request.shutdown(socket.SHUT_RDWR)

    def begin_answer(self, request: Any) -> None:
        """Record that a request is complete."""
        self._begin(request, _State.MAKING, _MADE)

    def begin_writing(self, request: Any) -> None:
        """Record that the answer to a request is made."""
        self._begin(request, _State.WRITING, _WRITTEN)

    def _begin(self, request: Any, state: _State, seconds: float) -> None:
        with self._lock:
            if visit := self._visits.get(request):
                visit.state, visit.until = state, time.monotonic() + seconds

    def service_actions(self) -> None:
        """Drop connections that take too long, even if they send bytes; called twice a second."""
        with self._lock:
            for request in [each for each, visit in self._visits.items() if visit.until < time.monotonic()]:
                self._let_go(request)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and free its slot."""
        with self._lock:
            self._visits.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnected or were too slow."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One request on one connection."""

    timeout = PATIENCE

    def __init__(self, answered: Callable[..., Answer], *connection: Any) -> None:
        self._answered = answered
        super().__init__(*connection)

    def parse_request(self) -> bool:
        """Answer every request here, for every method; the base class finds nothing left to dispatch."""
        if super().parse_request():
            hosts, server = self.headers.get_all("Host", []), cast("LiveServer", self.server)
            server.begin_answer(self.request)
            made = self._answered(method=self.command, hosts=hosts, path=self.path)
            server.begin_writing(self.request)
            self._send(made)
        return False

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse a malformed request like any other bad request."""
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
        # In chunks: the patience with a slow reader restarts with each.
        for start in range(0, len(body), _CHUNK):
            self.wfile.write(body[start : start + _CHUNK])

    def version_string(self) -> str:
        """The Server header, without the Python version."""
        return "lratlas"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """Log nothing."""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
