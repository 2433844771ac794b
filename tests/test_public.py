"""The public names: they are all there, documented, and do not change unnoticed."""

import re
from pathlib import Path

import lratlas
from public import public_modules, public_text

ROOT = Path(__file__).parents[1]


def test_the_public_names_and_their_signatures_are_the_frozen_ones() -> None:
    assert public_text() == Path(__file__).with_name("public.txt").read_text(encoding="utf-8")


def test_dir_lists_the_public_names_alone() -> None:
    assert dir(lratlas) == sorted([*lratlas.__all__, "__version__"])
    assert all(hasattr(lratlas, name) for name in lratlas.__all__)


def test_the_package_has_a_version_and_types() -> None:
    assert re.match(r"\d+\.\d+", lratlas.__version__)
    assert (ROOT / "src" / "lratlas" / "py.typed").is_file()


def test_the_page_on_what_is_stable_has_every_public_module() -> None:
    text = (ROOT / "docs" / "reference" / "stable.md").read_text(encoding="utf-8")
    rows = [
        re.findall(r"`([\w.]+)`", line.split("|")[1]) for line in text.splitlines() if line.startswith("| `lratlas")
    ]
    named = {"lratlas"}
    for names in rows:
        parent = names[0].rpartition(".")[0]
        named |= {parent + name if name.startswith(".") else name for name in names}
    assert set(public_modules()) == named
