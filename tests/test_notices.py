"""What the package logs reaches the user once."""

import logging

import pytest

from lratlas.notices import LOG, heard


def test_warnings_reach_the_notice_and_no_sentence_twice() -> None:
    said = list[str]()
    with heard(said.append) as once:
        LOG.warning("%d files are not read.", 3)
        once("3 files are not read.")
        once("Another.")
        LOG.info("Not for the user.")
        logging.getLogger("lratlas.inner").warning("From below.")
    LOG.warning("Too late.")
    assert said == ["3 files are not read.", "Another.", "From below."]


def test_the_innermost_notice_hears_and_the_same_one_only_once() -> None:
    outer, inner = list[str](), list[str]()
    hear = outer.append
    with heard(hear):
        with heard(inner.append):
            LOG.warning("Inside.")
        with heard(hear) as once:
            LOG.warning("Again.")
            once("Again.")
        LOG.warning("Again.")
    assert (outer, inner) == (["Again."], ["Inside."])


def test_handlers_are_as_before_even_after_an_error() -> None:
    before = [*LOG.handlers]
    with pytest.raises(ValueError, match="broken"), heard(print):
        raise ValueError("broken")
    assert LOG.handlers == before
