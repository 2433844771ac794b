"""What the package logs reaches the user once."""

import logging
import subprocess
import sys

import pytest

from lratlas.notices import LOG, forward_warnings


def test_warnings_reach_the_notice_and_are_not_said_twice() -> None:
    said = list[str]()
    with forward_warnings(said.append) as tell:
        for _ in range(2):
            LOG.warning("%d files are not read.", 3)
            tell("3 files are not read.")
        tell("Tried again.")
        tell("Tried again.")
        LOG.info("Not for the user.")
        logging.getLogger("lratlas.inner").warning("From below.")
    LOG.warning("Too late.")
    assert said == ["3 files are not read.", "Tried again.", "Tried again.", "From below."]


def test_the_innermost_notice_hears_and_the_same_one_only_once() -> None:
    outer, inner = list[str](), list[str]()
    hear = outer.append
    with forward_warnings(hear):
        with forward_warnings(inner.append):
            LOG.warning("Inside.")
        with forward_warnings(hear) as tell:
            LOG.warning("Again.")
            tell("Again.")
        LOG.warning("Again.")
    assert (outer, inner) == (["Again."], ["Inside."])


def test_handlers_are_as_before_even_after_an_error() -> None:
    before = [*LOG.handlers]
    with pytest.raises(ValueError, match="broken"), forward_warnings(print):
        raise ValueError("broken")
    assert LOG.handlers == before


CONFIGURE = "import logging; logging.basicConfig(format='%(levelname)s %(name)s %(message)s'); "


@pytest.mark.parametrize(
    ("configure", "shown"),
    [
        ("", "lratlas: 3 files are not read.\nlratlas: Tried again.\n"),
        (CONFIGURE, "WARNING lratlas 3 files are not read.\nWARNING lratlas Tried again.\n"),
        ("import logging; logging.getLogger('lratlas').setLevel(logging.ERROR); ", ""),
    ],
)
def test_without_a_notice_sentences_are_logged_and_shown_where_logging_is_not_configured(
    configure: str, shown: str
) -> None:
    words = (
        "from lratlas.notices import LOG, forward_warnings\n"
        "with forward_warnings(None) as tell:\n"
        "    LOG.warning('%d files are not read.', 3)\n"
        "    tell('3 files are not read.')\n"
        "    tell('Tried again.')\n"
    )
    ran = subprocess.run([sys.executable, "-c", configure + "\n" + words], capture_output=True, check=True)
    assert (ran.stdout.decode(), ran.stderr.decode()) == ("", shown)


def test_without_a_notice_the_one_around_hears() -> None:
    said = list[str]()
    with forward_warnings(said.append), forward_warnings(None) as tell:
        tell("Tried again.")
        LOG.warning("Inside.")
    assert said == ["Tried again.", "Inside."]
