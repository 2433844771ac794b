"""Sentences that the user should see: what the package logs, and what its functions pass to ``notice``."""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager

from lratlas.errors import first_line

LOG = logging.getLogger("lratlas")


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
    """Passes warnings on, each sentence once."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self.notice = notice
        self._logged = set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        sentence = record.getMessage()
        self.log_once(sentence)
        self._logged.add(sentence)

    def log_once(self, sentence: str) -> None:
        """Pass on a sentence that was not logged before."""
        if sentence not in self._logged:
            self.notice(sentence)


@contextmanager
def forward_warnings(notice: Callable[[str], None]) -> Generator[Callable[[str], None]]:
    """Let warnings of the logger ``lratlas`` reach ``notice`` meanwhile.

    Args:
        notice: Called with each sentence.

    Yields:
        The same, but without sentences that were logged here: every worker that reads the data has them to say again.
    """
    outer = [each for each in LOG.handlers if isinstance(each, _Forwarding)]
    if outer and outer[0].notice == notice:
        yield outer[0].log_once
        return
    handler = _Forwarding(notice)
    LOG.handlers = [each for each in LOG.handlers if each not in outer] + [handler]
    try:
        yield handler.log_once
    finally:
        LOG.handlers = [each for each in LOG.handlers if each is not handler] + outer
