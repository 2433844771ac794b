import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data.serving import published, served
from lratlas.data import sources
from lratlas.data.sources import Fetching, fetch
from lratlas.errors import DataError, MissingLibrary

CONTENTS = {"a.bin": bytes(range(256)) * 1000, "b.bin": b"short"}

Publish = Callable[[str, dict[str, bytes]], None]


@pytest.fixture
def publish(root: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Puts a data set into the catalogue, alone."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert not root.exists()

    def put(url: str, contents: dict[str, bytes]) -> None:
        monkeypatch.setattr(sources, "CATALOGUE", {"own": published(url, contents)})

    return put


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server's URL and its folder, which has the files."""
    folder = tmp_path / "site"
    folder.mkdir()
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    with served(folder) as url:
        yield url, folder


def test_files_are_downloaded_with_progress(root: Path, publish: Publish, site: tuple[str, Path]):
    publish(site[0], CONTENTS)
    seen: list[Fetching] = []
    assert fetch("own", progress=seen.append) == (root / "own/a.bin", root / "own/b.bin")
    assert {path.name: path.read_bytes() for path in (root / "own").iterdir()} == CONTENTS
    for name, content in CONTENTS.items():
        steps = [step.done for step in seen if step.file == name]
        assert steps == sorted(steps)
        assert steps[-1] == len(content)
        assert {step.total for step in seen if step.file == name} == {len(content)}
    assert len([step for step in seen if step.file == "a.bin"]) > 2


def test_what_is_there_is_not_downloaded_again_unless_it_is_wrong(root: Path, publish: Publish, site: tuple[str, Path]):
    publish(site[0], CONTENTS)
    fetch("own")
    (site[1] / "a.bin").unlink()
    (root / "own/b.bin").write_bytes(b"wrong")
    fetch("own")
    assert {path.name: path.read_bytes() for path in (root / "own").iterdir()} == CONTENTS


def test_a_wrong_checksum_leaves_nothing_behind(root: Path, publish: Publish, site: tuple[str, Path]):
    publish(site[0], CONTENTS | {"a.bin": b"another"})
    with pytest.raises(DataError, match=r"a\.bin does not have the SHA-256 [0-9a-f]{64} and was deleted"):
        fetch("own")
    assert list((root / "own").iterdir()) == []


def test_a_file_that_is_not_there_is_named(root: Path, publish: Publish, site: tuple[str, Path]):
    publish(site[0], {"c.bin": b"x"})
    with pytest.raises(DataError, match=r"c\.bin cannot be downloaded \(the server answered 404\)"):
        fetch("own")
    assert list((root / "own").iterdir()) == []


def test_without_a_network_the_message_says_what_to_put_where(root: Path, publish: Publish, tmp_path: Path):
    with served(tmp_path) as url:
        pass  # nobody listens there any more
    publish(url, CONTENTS)
    with pytest.raises(DataError) as refusal:
        fetch("own")
    assert str(refusal.value) == (
        f"{url}/a.bin cannot be downloaded (no connection);"
        f" without a network, put a.bin, b.bin (from {url}) into {root / 'own'}."
    )


def test_a_data_root_that_is_a_file_is_named(root: Path, publish: Publish, site: tuple[str, Path]):
    publish(site[0], CONTENTS)
    root.write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"own/a\.bin cannot be written"):
        fetch("own")


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("missing", ["pooch", "requests"])
def test_without_the_extra_the_message_says_what_to_install(
    missing: str, root: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
):
    publish("http://127.0.0.1:9", CONTENTS)
    monkeypatch.setitem(sys.modules, missing, None)
    sentence = f"^{missing} is not installed; this installs it: pip install 'lratlas\\[images\\]'$"
    with pytest.raises(MissingLibrary, match=sentence):
        fetch("own")
    assert not root.exists()


def test_an_unknown_data_set_is_refused():
    with pytest.raises(DataError, match=r"no data set 'fashion_mnist' \(did you mean fashion-mnist\?\)"):
        fetch("fashion_mnist")
