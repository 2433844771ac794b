"""What is answered to a request: the page, its version, or a refusal.

Two addresses are known, and no path is ever taken for a file. The first part of every path is a random token. Since
a page of somebody else's in the same browser may point a name of its own at this machine, only requests for the very
name that is served are answered.
"""

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from http import HTTPStatus

from lratlas.errors import LRAtlasError, first_line
from lratlas.serve.live import LivePage

TEXT, HTML = "text/plain; charset=utf-8", "text/html; charset=utf-8"
RETRY = 5  # seconds after which a browser asks again for a page that could not be made

# The page's own policy, with requests to this server alone; nothing may embed it.
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
        page: What is served.
        token: The first part of every path.
        served_as: Whether a host, with its port, is one that the page is served as.
        method: The request's method; only GET is answered.
        hosts: Its Host headers; there must be one.
        path: Its path, ``/TOKEN/`` for the page or ``/TOKEN/version``.
    """
    if method != "GET":
        return Answer(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET is answered here.\n")
    if len(hosts) != 1 or not served_as(hosts[0]):
        return Answer(HTTPStatus.FORBIDDEN, "Nothing is served under this name.\n")
    _, given, rest = [*path.split("/", 2), "", ""][:3]
    if not hmac.compare_digest(given.encode(), token.encode()) or path != f"/{given}/{rest}":
        return _unknown()
    try:
        if rest == "":
            return Answer(HTTPStatus.OK, page.text(), HTML)
        return Answer(HTTPStatus.OK, page.version()) if rest == "version" else _unknown()
    except Exception as error:  # whatever is wrong with a study that is being written may be right soon
        known = isinstance(error, LRAtlasError)
        reason = first_line(error) if known else f"{type(error).__name__}: {first_line(error)}"
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, _apology(reason), HTML)


def _unknown() -> Answer:
    return Answer(HTTPStatus.NOT_FOUND, "There is nothing at this address; it must be the whole one, as printed.\n")


def _apology(reason: str) -> str:
    """A page that says why there is none, and asks again."""
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="{RETRY}">
<title>Not to be shown right now</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }}</style>
<h1>The study cannot be shown right now</h1>
<p>{escape(reason)}</p>
<p>This page tries again every {RETRY} seconds.</p>
</html>
"""
