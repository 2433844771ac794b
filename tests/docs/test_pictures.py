"""The pictures of the results show the tables that are stored next to them."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from docs.pages import DOCS

_found = spec_from_file_location("stored_pictures", DOCS / "pictures" / "stored.py")
assert _found
assert _found.loader
stored = module_from_spec(_found)
sys.modules["stored_pictures"] = stored
_found.loader.exec_module(stored)


PICTURES: list[Path] = stored.pictures()
# One of each kind is drawn whenever the tests run, the others with the long ones.
FIRST = {path.stem: path for path in reversed(PICTURES)}


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(
            path, id=f"{path.parent.name}-{path.stem}", marks=[] if FIRST[path.stem] == path else [pytest.mark.long]
        )
        for path in PICTURES
    ],
)
def test_a_picture_shows_its_table(picture: Path) -> None:
    # If a chart has changed: python docs/pictures/stored.py
    assert picture.read_text(encoding="utf-8") == stored.draw(picture)


def test_most_pictures_have_a_table() -> None:
    assert len(PICTURES) > 30
