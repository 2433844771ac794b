import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from lratlas.errors import PathError, StudyError
from lratlas.study.folder import AGAIN, Folder

SPEC = 'name = "study"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.create(tmp_path / "study", SPEC)


def test_texts_and_bytes_read_back_equal(folder: Folder):
    folder.write_text("plan.json", "{}\r\n é")
    folder.write_bytes("figures/a.pdf", b"\x00\xff")
    assert folder.read_text("plan.json") == "{}\r\n é"
    assert folder.read_bytes("figures/a.pdf") == b"\x00\xff"
    assert folder.exists("figures/a.pdf")
    assert not folder.exists("report.html")
    with pytest.raises(StudyError, match=r"There is no file report\.html in "):
        folder.read_text("report.html")
    with pytest.raises(StudyError, match="is not text in UTF-8"):
        folder.read_text("figures/a.pdf")


def test_a_study_is_opened_again_and_its_spec_stays(tmp_path: Path):
    Folder.create(tmp_path / "a b" / "study", SPEC)
    assert Folder.create(tmp_path / "a b" / "study", "other = 1").read_text("spec.toml") == SPEC
    assert Folder.open(str(tmp_path / "a b" / "study")).read_text("spec.toml") == SPEC
    assert [path.name for path in (tmp_path / "a b").iterdir()] == ["study"]


def test_folders_that_cannot_be_used_are_named(tmp_path: Path):
    file, other, empty_folder = tmp_path / "file", tmp_path / "other", tmp_path / "empty"
    file.write_text("x")
    other.mkdir()
    (other / "notes.txt").write_text("x")
    empty_folder.mkdir()
    with pytest.raises(StudyError, match="file is a file, but a study needs a folder"):
        Folder.create(file, SPEC)
    with pytest.raises(StudyError, match="file is a file, but a study is a folder"):
        Folder.open(file)
    with pytest.raises(StudyError, match="other is not empty and not a study"):
        Folder.create(other, SPEC)
    with pytest.raises(StudyError, match=r"other is not a study: it has no spec\.toml"):
        Folder.open(other)
    with pytest.raises(StudyError, match=r"no study in the empty folder .*empty"):
        Folder.open(empty_folder)
    with pytest.raises(StudyError, match=r"There is no folder .*absent"):
        Folder.open(tmp_path / "absent")
    with pytest.raises(StudyError, match="cannot be written"):
        Folder.create(file / "study", SPEC)
    with pytest.raises(StudyError, match="cannot be used"):
        Folder.open("nosuch://bucket/study")


def test_a_folder_is_made_with_its_spec_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(_: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StudyError, match=r"spec\.toml cannot be written to .*new: Read-only file system"):
        Folder.create(tmp_path / "new", SPEC)
    assert list(tmp_path.iterdir()) == []


def test_many_writers_may_make_the_same_study(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(Folder.create, tmp_path / "study", SPEC) for _ in range(16)]
    assert [each.result().read_text("spec.toml") for each in made] == [SPEC] * 16
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


@pytest.mark.parametrize("place", ["outside", "study/inside"])
@pytest.mark.parametrize("deed", ["write", "remove", "set aside", "read", "ask", "list"])
def test_a_link_to_a_folder_is_not_followed(folder: Folder, tmp_path: Path, deed: str, place: str):
    """As a stranger may have packed it."""
    outside = tmp_path / place
    outside.mkdir()
    (outside / "kept.parquet").write_text("somebody's")
    (Path(folder.root) / "tables").symlink_to(outside, target_is_directory=True)
    deeds = {
        "write": lambda: folder.write_text("tables/kept.parquet", "another's"),
        "remove": lambda: folder.remove("tables/kept.parquet"),
        "set aside": lambda: folder.set_aside("tables/kept.parquet"),
        "read": lambda: folder.read_text("tables/kept.parquet"),
        "ask": lambda: folder.exists("tables/kept.parquet"),
        "list": lambda: folder.files("tables"),
    }
    with pytest.raises(StudyError, match=r"tables is a link to a folder, but a study must not contain such links"):
        deeds[deed]()
    assert (outside / "kept.parquet").read_text() == "somebody's"
    assert [path.name for path in outside.iterdir()] == ["kept.parquet"]
    with pytest.raises(StudyError, match=r"tables is a link to a folder"):
        Folder.open(folder.root)
    (Path(folder.root) / "tables").unlink()
    # A link to the study's own folder from elsewhere is a way into it like any other.
    (tmp_path / "link").symlink_to(folder.root, target_is_directory=True)
    Folder.open(tmp_path / "link").write_text("plan.json", "{}")
    assert folder.read_text("plan.json") == "{}"


@pytest.mark.parametrize("relative", [False, True])
def test_a_link_to_a_file_is_read_and_never_written_through(folder: Folder, tmp_path: Path, relative: bool):
    """As git-annex and DVC make of large files."""
    cached = tmp_path / "cache" / "0123"
    cached.parent.mkdir()
    cached.write_text("large")
    link = Path(folder.root) / "checkpoints" / "a.safetensors"
    link.parent.mkdir()

    def put_link() -> None:
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(cached, link.parent) if relative else cached)

    name = "checkpoints/a.safetensors"
    put_link()
    assert (folder.files("checkpoints"), folder.read_text(name)) == (["a.safetensors"], "large")
    folder.write_text(name, "new")
    assert (link.is_symlink(), link.read_text(), cached.read_text()) == (False, "new", "large")
    put_link()
    aside = folder.set_aside(name)
    assert (link.is_symlink(), folder.read_text(aside), cached.read_text()) == (False, "large", "large")
    put_link()
    folder.remove(name)
    assert (link.is_symlink(), cached.read_text()) == (False, "large")
    put_link()
    cached.unlink()
    assert not folder.exists(name)
    assert folder.files("checkpoints") == []


def created(place: Path, text: str) -> str:
    """The spec that a folder has as soon as it is made."""
    return Folder.create(place, text).read_text("spec.toml")


def test_of_two_that_make_a_study_in_an_empty_folder_one_succeeds(tmp_path: Path):
    for number in range(60):
        place = tmp_path / str(number)
        place.mkdir()
        specs = [f"name = {each}" for each in range(4)]
        with ThreadPoolExecutor(4) as pool:
            seen = set(pool.map(partial(created, place), specs))
        assert len(seen) == 1
        assert seen < {*specs}


def test_a_file_that_another_process_removes_first_is_no_error(folder: Folder):
    def come_and_go(_: int) -> None:
        folder.write_text("report.html", "page")
        folder.remove("report.html")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(400)))
    assert not folder.exists("report.html")


def test_a_folder_that_was_removed_is_not_made_again(folder: Folder):
    shutil.rmtree(folder.root)
    deeds = (lambda: folder.write_text("tables/a.parquet", ""), lambda: folder.read_text("spec.toml"))
    for deed in deeds:
        with pytest.raises(StudyError, match="study was removed while in use"):
            deed()
    assert not Path(folder.root).exists()


def test_a_folder_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert Folder.create("~/study", SPEC).url == str(tmp_path / "study")
    assert Folder.open(Path("~/study")).read_text("spec.toml") == SPEC
    assert Folder.create("a~/$HOME/::", SPEC).url == str(tmp_path / "a~" / "$HOME" / "::")
    with pytest.raises(PathError, match="~nosuchuser/study begins with an unknown home folder"):
        Folder.open("~nosuchuser/study")


def test_a_search_is_not_a_study(tmp_path: Path):
    (tmp_path / "search.json").write_text("{}")
    with pytest.raises(StudyError, match=r"is a search for an initial LR, not a study; `lratlas status .*` shows it"):
        Folder.open(tmp_path)


@pytest.mark.parametrize(
    ("spec", "how"),
    [
        ('[task]\npreset = "digits"\n', "run `lratlas resume '{}'`"),
        ('[task]\nmodel = "my:model"\n', "run `lratlas resume '{}'`"),
        ('[task]\npreset = "python"\n', AGAIN),
        ("[task\n", "run `lratlas resume '{}'` or, if the task is from Python, " + AGAIN),
        ("task = 3\n", "run `lratlas resume '{}'` or, if the task is from Python, " + AGAIN),
    ],
)
def test_how_a_study_is_continued_depends_on_where_its_task_is_from(tmp_path: Path, spec: str, how: str):
    folder = Folder.create(tmp_path / "a study", spec)
    assert folder.how_to_continue() == how.format(folder.url)
    folder.remove("spec.toml")
    assert AGAIN in folder.how_to_continue()
    assert "lratlas resume" in folder.how_to_continue()


def test_a_full_disk_says_how_the_study_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = Folder.create(tmp_path / "study", '[task]\npreset = "python"\n')

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StudyError, match=r"disk is full: .*; free space and run the same explore\(\) call again\.$"):
        folder.write_text("plan.json", "{}")
