"""Sentences that the user should see: what the package logs, and what its functions pass to ``notice``."""

import logging
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from lratlas.errors import first_line
from lratlas.lines import line

LOG = logging.getLogger("lratlas")


def show_notice(text: str, *, style: str = "yellow") -> None:
    """Print a sentence to standard error; on one line unless that is a terminal.

    Args:
        text: The sentence; a full stop is added where it has no end.
        style: That of the name in front of it, in a terminal.
    """
    sentence = " ".join(text.split("\n")).strip()
    end = "" if sentence.endswith((".", "!", "?", "…")) else "."
    sys.stderr.write(line(("lratlas: ", style), f"{sentence}{end}", stream=sys.stderr))


@contextmanager
def warn_on_failure(what: str, *, but: type[BaseException] = SystemExit) -> Generator[None]:
    """Around what a result can do without: an error, but for one kind, becomes a warning that begins with ``what``."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, but):
        raise
    except BaseException as error:  # such as a panic of vl-convert, which is no Exception
        LOG.warning("%s: %s", what, first_line(error).rstrip("."))


class _Forwarding(logging.Handler):
    """Passes warnings on, each sentence once; without a ``notice`` other handlers have them, and it remembers them."""

    def __init__(self, notice: Callable[[str], None] | None) -> None:
        super().__init__(logging.WARNING)
        self.notice = notice
        self._logged = set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        sentence = record.getMessage()
        if self.notice and sentence not in self._logged:
            self.notice(sentence)
        self._logged.add(sentence)

    def log_once(self, sentence: str) -> None:
        """Pass on a sentence that was not logged before."""
        if sentence in self._logged:
            return
        if self.notice:
            self.notice(sentence)
        else:
            LOG.warning("%s", sentence)
            self._logged.discard(sentence)  # it came from elsewhere, and may come again


def _drop(_sentence: str) -> None:
    pass


@contextmanager
def forward_warnings(notice: Callable[[str], None] | None) -> Generator[Callable[[str], None]]:
    """Let warnings of the logger ``lratlas`` reach ``notice`` meanwhile.

    Args:
        notice: Called with each sentence. None: sentences are logged as warnings of ``lratlas``, and shown on standard
            error where logging is not configured.

    Yields:
        A function for further sentences, which drops those that were logged here: every worker that reads the data has
        them to say again.
    """
    outer = [each for each in LOG.handlers if isinstance(each, _Forwarding)]
    if outer and notice in (None, outer[0].notice):
        yield outer[0].log_once
        return
    if notice is None and not LOG.hasHandlers():
        notice = show_notice if LOG.isEnabledFor(logging.WARNING) else _drop
    handler = _Forwarding(notice)
    LOG.handlers = [each for each in LOG.handlers if each not in outer] + [handler]
    try:
        yield handler.log_once
    finally:
        LOG.handlers = [each for each in LOG.handlers if each is not handler] + outer
