"""A file system that remembers what it listed, as those of object stores do: what other processes write is seen."""

from collections.abc import Generator
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lratlas.study.store import Store
from lratlas.tables import empty


class Remembering(MemoryFileSystem):
    """Answers from its memory until that is dropped; writing does not change what it remembers."""

    protocol: ClassVar[str] = "remembering"
    store: ClassVar[dict[str, Any]] = {}  # pyright: ignore[reportIncompatibleVariableOverride] - fsspec means it so
    pseudo_dirs: ClassVar[list[str]] = [""]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.known: dict[tuple[str, str], Any] = {}

    def _remembered(self, what: str, path: str, **options: Any) -> Any:
        key = what, path
        if key not in self.known:
            try:
                self.known[key] = getattr(super(), what)(path, **options)
            except FileNotFoundError as error:
                self.known[key] = error
        if isinstance(self.known[key], FileNotFoundError):
            raise self.known[key]
        return self.known[key]

    def info(self, path: str, **options: Any) -> Any:
        return self._remembered("info", path, **options)

    def isfile(self, path: str) -> bool:
        try:
            return self.info(path)["type"] == "file"
        except FileNotFoundError:
            return False

    def cat_file(self, path: str, *args: Any, **options: Any) -> bytes:
        # As fsspec's own files do: as many bytes as the file has by what is remembered of it.
        whole = super().cat_file(path, *args, **options)
        return whole[: self.info(path)["size"]]

    def invalidate_cache(self, path: str | None = None) -> None:  # noqa: ARG002 - as fsspec has it
        self.known.clear()


@pytest.fixture
def stores() -> Generator[tuple[Store, Store]]:
    """The same study as two processes see it."""
    fsspec.register_implementation("remembering", Remembering, clobber=True)
    Remembering.store.clear()
    Remembering.pseudo_dirs[:] = [""]
    first = Store.create("remembering://study", "spec")
    Remembering.clear_instance_cache()
    second = Store.open("remembering://study")
    assert first.filesystem is not second.filesystem
    yield first, second
    Remembering.clear_instance_cache()


def test_what_another_process_writes_and_removes_is_seen(stores: tuple[Store, Store]):
    one, other = stores
    assert not one.has_part("runs", "part")
    assert one.parts("runs") == set()
    other.write_table("runs", "part", empty("runs"))
    assert one.has_part("runs", "part")
    assert one.parts("runs") == {"part"}
    other.remove_part("runs", "part")
    assert not one.has_part("runs", "part")


def test_a_file_that_has_grown_is_read_whole(stores: tuple[Store, Store]):
    one, other = stores
    one.write_text("plan.json", "short")
    assert one.read_text("plan.json") == "short"
    other.write_text("plan.json", "a longer text")
    assert one.read_text("plan.json") == "a longer text"


def test_it_would_not_be_seen_without_care(stores: tuple[Store, Store]):
    """That the file system of these tests does remember."""
    one, other = stores
    path = f"{one.root}/plan.json"
    assert not one.filesystem.isfile(path)
    other.write_text("plan.json", "text")
    assert not one.filesystem.isfile(path)
