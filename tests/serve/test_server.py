"""The live server, spoken to over HTTP."""

import html
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lratlas.errors import SpecError, StudyError
from lratlas.serve import LiveServer
from serve.helpers import Reply, answering, ask

PAGE = "<!doctype html><title>größe</title>"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a page that does not change."""
    with answering(LiveServer(render=lambda: PAGE, version=lambda: "v1")) as address:
        yield address


def raw(url: str, request: bytes) -> bytes:
    """All that comes back when the bytes are sent."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as stream:
            return stream.read()


def refused(reply: Reply, status: int) -> bool:
    """Whether a reply has this status and nothing of the page in it."""
    return reply.status == status and PAGE not in reply.body and "v1" not in reply.body


def test_the_page_and_its_version_are_served(url: str):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", url)
    page, version = ask(url), ask(url + "version")
    assert (page.status, page.body, page.headers["Content-Type"]) == (200, PAGE, "text/html; charset=utf-8")
    assert (version.status, version.body) == (200, "v1")
    assert version.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_every_server_has_a_token_of_its_own(url: str):
    with answering(LiveServer(render=lambda: PAGE, version=lambda: "v1")) as other:
        tokens = [urlsplit(each).path for each in (url, other)]
        assert tokens[0] != tokens[1]
        assert refused(ask(other, tokens[0]), 404)


@pytest.mark.parametrize("path", ["{}", "{}version", "/", "{}nothing"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_every_answer_carries_the_headers_that_keep_a_browser_careful(path: str, method: str, url: str):
    headers = ask(url, path.format(urlsplit(url).path), method=method).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "http" not in str(policy)
    assert "Access-Control-Allow-Origin" not in headers
    assert "Python" not in headers["Server"]


@pytest.mark.parametrize(
    "path",
    ["/", "/version", "/wrong/", "/wrong/version", "//", "{short}", "{start}/", "{upper}", "{}x", "{}/", "{}?", "*"],
)
def test_a_wrong_token_or_path_is_not_found(path: str, url: str):
    token = urlsplit(url).path
    path = path.format(token, short=token[:-1], start=token[:-2], upper=token.swapcase())
    assert refused(ask(url, path), 404)


@pytest.mark.parametrize(
    "path",
    [
        "{}../",
        "{}../../etc/passwd",
        "{}..%2f..%2fetc%2fpasswd",
        "{}spec.toml",
        "{}./",
        "{}%2e%2e/",
        "{}version/..",
        "{}version/",
        "{}\\..\\spec.toml",
        "/../{}",
        "/etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1{}",
    ],
)
def test_no_path_leads_to_a_file(path: str, url: str):
    place = urlsplit(url)
    assert refused(ask(url, path.format(place.path), Host=place.netloc), 404)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
def test_only_two_paths_are_known(path: str, url: str):
    token = urlsplit(url).path
    assert refused(ask(url, f"/{path}"), 404)
    known = path in {"", "version"}
    assert (ask(url, token + path).status == 200) == known


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "get", "BREW"])
def test_any_method_but_get_is_refused(method: str, url: str):
    reply = ask(url, method=method, body="x=1" if method in {"POST", "PUT", "PATCH"} else None)
    assert refused(reply, 405)
    assert reply.headers["Allow"] == "GET"
    assert (reply.body == "") == (method == "HEAD")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1:{port}.evil.example",
        "127.0.0.1.evil.example:{port}",
        "user@127.0.0.1:{port}",
        "192.0.2.1:{port}",
        "0.0.0.0:{port}",
        "",
        ":{port}",
        "127.0.0.1:{port}, evil.example",
    ],
)
def test_another_host_is_refused(host: str, url: str):
    reply = ask(url, Host=host.format(port=urlsplit(url).port))
    assert refused(reply, 403)
    assert refused(ask(url + "version", Host=host.format(port=urlsplit(url).port)), 403)


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LocalHost:{port}"])
def test_the_names_of_this_machine_are_served(host: str, url: str):
    assert ask(url, Host=host.format(port=urlsplit(url).port)).body == PAGE


def test_no_host_and_two_hosts_are_refused(url: str):
    place = urlsplit(url)
    host = f"Host: {place.netloc}\r\n"
    for hosts, status in (("", b"403"), (host, b"200"), (host + host, b"403"), (host + "Host: evil\r\n", b"403")):
        reply = raw(url, f"GET {place.path} HTTP/1.1\r\n{hosts}\r\n".encode())
        assert reply.split()[1] == status


def test_a_network_is_served_under_addresses_and_this_machines_name_alone():
    server = LiveServer(render=lambda: PAGE, version=lambda: "v1", host="0.0.0.0")
    assert server.to_others
    with answering(server) as url:
        port = urlsplit(url).port
        assert url.startswith("http://127.0.0.1:")
        for host in ("127.0.0.1", "192.0.2.1", "[2001:db8::1]", socket.gethostname(), "localhost"):
            assert ask(url, Host=f"{host}:{port}").status == 200
        for host in ("evil.example", "192.0.2.1.evil.example", "[evil]", "[]"):
            assert refused(ask(url, Host=f"{host}:{port}"), 403)
        assert refused(ask(url, Host="192.0.2.1"), 403)


def test_a_name_given_as_host_is_served():
    server = LiveServer(render=lambda: PAGE, version=lambda: "v1", host="LOCALHOST")
    assert not server.to_others
    with answering(server) as url:
        assert url.startswith("http://localhost:")
        assert ask(url).body == PAGE


@pytest.mark.parametrize(
    "request_line", [b"GET /" + b"a" * 70_000, b"nonsense", b"GET / HTTP/9.9", b"\xff\xfe / HTTP/1.1", b""]
)
def test_what_is_no_proper_request_is_refused(request_line: bytes, url: str):
    reply = raw(url, request_line + b"\r\n\r\n")
    assert b" 200 " not in reply
    assert PAGE.encode() not in reply
    assert b"Traceback" not in reply
    assert ask(url).status == 200


def test_a_long_request_line_and_too_many_headers_have_their_own_refusals(url: str):
    assert b" 414 " in raw(url, b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n")
    assert b" 431 " in raw(url, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n")


@pytest.mark.parametrize(
    "error", [StudyError("tables/runs/<b>.parquet was cut short."), ValueError("<b> is not 3\nand more")]
)
@pytest.mark.parametrize("at", ["render", "version"])
def test_what_cannot_be_shown_says_why_and_recovers(at: str, error: Exception, capfd: pytest.CaptureFixture[str]):
    faults = [error]

    def told(value: str, *, by: str) -> Callable[[], str]:
        def tell() -> str:
            if faults and by == at:
                raise faults[0]
            return value

        return tell

    with answering(LiveServer(render=told(PAGE, by="render"), version=told("v1", by="version"))) as url:
        reply = ask(url)
        assert reply.status == 503
        assert html.escape(str(error).split("\n")[0]) in reply.body
        assert "<b>" not in reply.body
        assert "Traceback" not in reply.body
        assert (reply.headers["Retry-After"], 'http-equiv="refresh"' in reply.body) == ("5", True)
        assert ask(url + "version").status == (503 if at == "version" else 200)
        faults.clear()
        assert (ask(url).body, ask(url + "version").body) == (PAGE, "v1")
    assert capfd.readouterr() == ("", "")


def test_the_version_is_told_while_a_page_is_made():
    begun, go_on = threading.Event(), threading.Event()

    def render() -> str:
        begun.set()
        assert go_on.wait(20)
        return PAGE

    with answering(LiveServer(render=render, version=lambda: "v1")) as url:
        reader = threading.Thread(target=ask, args=(url,))
        reader.start()
        assert begun.wait(20)
        assert ask(url + "version").body == "v1"
        go_on.set()
        reader.join()


def test_clients_that_say_nothing_are_let_go(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.setattr("lratlas.serve._Handler.timeout", 0.2)
    with answering(LiveServer(render=lambda: PAGE, version=lambda: "v1")) as url:
        assert raw(url, b"GET / HT") == b""
        assert raw(url, b"") == b""
        assert ask(url).body == PAGE
    assert capfd.readouterr() == ("", "")


def test_slow_connections_do_not_shut_others_out(capfd: pytest.CaptureFixture[str]):
    """The oldest of an address make room for new ones, and other addresses have their own room."""
    with answering(LiveServer(render=lambda: PAGE, version=lambda: "v1")) as url:
        place = (urlsplit(url).hostname, urlsplit(url).port)
        before = threading.active_count()

        def slow(source: str) -> socket.socket:
            connection = socket.create_connection(place, timeout=20, source_address=(source, 0))
            connection.sendall(b"GET / HTTP/1.1\r\n")
            return connection

        idle = [slow("127.0.0.2") for _ in range(40)]
        assert ask(url).body == PAGE
        assert idle[0].recv(1) == b""
        idle += [slow("127.0.0.1") for _ in range(40)]
        assert ask(url).body == PAGE
        assert idle[40].recv(1) == b""
        for _ in range(200):  # those that were let go end soon
            if threading.active_count() - before <= 32:
                break
            time.sleep(0.02)
        assert threading.active_count() - before <= 32
        for connection in idle:
            connection.close()
    assert capfd.readouterr() == ("", "")


def test_a_request_has_a_deadline_however_it_trickles(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("lratlas.serve.PATIENCE", 0.3)
    with answering(LiveServer(render=lambda: PAGE, version=lambda: "v1")) as url:
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port), timeout=0.02) as connection:
            for _ in range(1000):
                try:
                    connection.sendall(b"A")
                    assert connection.recv(1) == b""
                    break
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
            else:
                pytest.fail("it was never let go")
    assert capfd.readouterr() == ("", "")


def test_a_slow_reader_gets_a_large_page_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lratlas.serve._Handler.timeout", 1.0)
    large = "x" * 20_000_000  # more than the system holds on the way
    with answering(LiveServer(render=lambda: large, version=lambda: "v1")) as url:
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
            connection.sendall(f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
            got, slow_until = 0, time.monotonic() + 1.5  # longer than the patience with a single piece
            while part := connection.recv(100_000):
                got += len(part)
                if time.monotonic() < slow_until:
                    time.sleep(0.03)
        assert got > len(large)


def start_reading(url: str, source: str) -> socket.socket:
    """A connection that asks for the page and reads nothing."""
    place = urlsplit(url)
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.settimeout(20)
    small.bind((source, 0))
    small.connect((place.hostname, place.port))
    small.sendall(f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
    assert small.recv(4) == b"HTTP"
    return small


def test_slow_readers_do_not_shut_others_out(capfd: pytest.CaptureFixture[str]):
    large = "x" * 8_000_000  # more than the system holds on the way
    with answering(LiveServer(render=lambda: large, version=lambda: "v1")) as url:
        for source in ("127.0.0.2", "127.0.0.3", "127.0.0.1"):
            readers = [start_reading(url, source) for _ in range(40)]
            assert ask(url).body == large
            for each in readers:
                each.close()
    assert capfd.readouterr() == ("", "")


def test_an_answer_has_a_deadline_however_slowly_it_is_read(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("lratlas.serve._WRITTEN", 0.3)
    large = "x" * 8_000_000
    with answering(LiveServer(render=lambda: large, version=lambda: "v1")) as url:
        reader = start_reading(url, "127.0.0.1")
        got = 0
        with suppress(ConnectionError):
            while part := reader.recv(20_000):  # each within the patience with a piece
                got += len(part)
                time.sleep(0.01)
        assert got < len(large)
        reader.close()
    assert capfd.readouterr() == ("", "")


def test_a_taken_port_is_named(url: str):
    port = urlsplit(url).port
    assert port is not None
    with pytest.raises(SpecError, match=rf"Cannot listen on port {port} of '127\.0\.0\.1': .+ in use"):
        LiveServer(render=str, version=str, port=port)


@pytest.mark.parametrize(
    ("host", "port"), [("no.such.host.invalid", 0), ("192.0.2.1", 0), ("a" * 70, 0), ("127.0.0.1", 70_000)]
)
def test_what_cannot_be_listened_on_is_refused(host: str, port: int):
    with pytest.raises(SpecError, match=rf"Cannot listen on port {port} of '{host}': .+ must be an address of"):
        LiveServer(render=str, version=str, host=host, port=port)
