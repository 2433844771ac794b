"""What a training prints, logs or displays goes into its file, and nothing of it is left on the usual streams."""

import io
import logging
import sys
from collections.abc import Generator

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from lratlas.search.driven.outputs import Outputs


@pytest.fixture
def logger() -> Generator[logging.Logger]:
    """One whose handlers are removed afterwards."""
    found = logging.getLogger("a.package")
    found.propagate = False
    yield found
    found.handlers.clear()


def test_handlers_of_loggers_write_for_the_training_and_then_as_before(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
):
    streams = logging.StreamHandler(sys.stdout), logging.StreamHandler(kept := io.StringIO())
    for each in streams:
        logger.addHandler(each)
    outputs = Outputs()
    with outputs.into(written := io.StringIO()):
        logger.warning("one")
        logger.addHandler(logging.StreamHandler())  # as a package does that is imported in a training
        logger.warning("two")
    assert written.getvalue() == "one\n" + "two\ntwo\n"
    assert [each.stream for each in streams] == [sys.stdout, kept]
    logger.warning("three")
    assert kept.getvalue() == "one\ntwo\nthree\n"
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("three\n", "three\n")


def test_what_is_written_after_a_training_is_dropped(capsys: pytest.CaptureFixture[str]):
    outputs = Outputs()
    with outputs.into(written := io.StringIO()):
        stream = sys.stderr
        stream.write("a bar")
    stream.write("is closed")
    stream.flush()
    with pytest.raises(io.UnsupportedOperation):
        stream.fileno()
    assert written.getvalue() == "a bar"
    assert capsys.readouterr() == ("", "")


def test_a_notebook_displays_nothing_of_a_training(capsys: pytest.CaptureFixture[str]):
    shell = InteractiveShell.instance()
    publisher = shell.display_pub
    try:
        with Outputs().into(io.StringIO()):
            display("of a training")
        assert shell.display_pub is publisher
        display("of a cell")
        assert capsys.readouterr().out == "'of a cell'\n"
    finally:
        InteractiveShell.clear_instance()
