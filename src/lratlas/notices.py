"""Sentences for the user: logged warnings, and notices that functions pass to ``notice``."""

import logging
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from lratlas.errors import first_line
from lratlas.lines import line

LOG = logging.getLogger("lratlas")


def show_notice(text: str, *, style: str = "yellow") -> None:
    """Print a sentence to standard error, on one line unless it is a terminal.

    Args:
        text: The sentence; a full stop is added if it lacks one.
        style: The style of the name in front of the sentence, in a terminal.
    """
    sentence = " ".join(text.split("\n")).strip()
    end = "" if sentence.endswith((".", "!", "?", "…")) else "."
    sys.stderr.write(line(("lratlas: ", style), f"{sentence}{end}", stream=sys.stderr))


@contextmanager
def warn_on_failure(what: str, *, but: type[BaseException] = SystemExit) -> Generator[None]:
    """Wrap an optional part of a result: any error except ``but`` becomes a warning that begins with ``what``."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, but):
        raise
    except BaseException as error:  # includes a panic of vl-convert, which is not an Exception
        LOG.warning("%s: %s", what, first_line(error).rstrip("."))


class _Forwarding(logging.Handler):
    """Forwards each warning once; without a ``notice`` it only remembers it, for other handlers to show."""

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
        """Forward a sentence that was not logged before."""
        if sentence in self._logged:
            return
        if self.notice:
            self.notice(sentence)
        else:
            LOG.warning("%s", sentence)
            self._logged.discard(sentence)  # other code logged it and may log it again


def _drop(_sentence: str) -> None:
    pass


@contextmanager
def forward_warnings(notice: Callable[[str], None] | None) -> Generator[Callable[[str], None]]:
    """Forward warnings of the logger ``lratlas`` to ``notice`` inside the block.

    Args:
        notice: Called with each sentence. None: sentences are logged as warnings of ``lratlas``, and shown on standard
            error if logging is not configured.

    Yields:
        A function for further sentences. It drops sentences that were already logged, since every worker that reads
        the data repeats them.
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
