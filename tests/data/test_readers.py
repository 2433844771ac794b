from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from data.makers import cifar10_files, idx_files, png, random_images, write_folder, write_tar, write_zip
from lratlas.data import sources
from lratlas.data.readers import read_images
from lratlas.data.sources import CATALOGUE, data_root, find, locate
from lratlas.errors import DataError, PathError


def test_the_binary_folder_of_cifar10_comes_before_the_tar_file_and_that_before_the_jpeg_copy(root: Path):
    image = png(random_images(32, 32, 3))
    write_zip(root / "cifar10-jpeg.zip", {f"{split}/cat/1.png": image for split in ("train", "test")})
    assert read_images("cifar10").name == "CIFAR-10 (JPEG copy)"
    images = random_images(12, 3, 32, 32)
    write_tar(root / "cifar-10-binary.tar.gz", cifar10_files(images, [1] * 12), top="x")
    assert set(read_images("cifar10").train[1].tolist()) == {1}
    write_folder(root / "cifar-10-batches-bin", cifar10_files(images, [2] * 12))
    assert set(read_images("cifar10").train[1].tolist()) == {2}


def test_an_empty_folder_does_not_hide_the_next_place(root: Path):
    (root / "mnist").mkdir(parents=True)
    write_folder(root / "MNIST/raw", idx_files(random_images(3, 5, 5), [0, 1, 2], train=2))
    assert len(read_images("mnist").train[0]) == 2


def test_the_folder_of_the_debian_package_is_found_without_a_data_root(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place = CATALOGUE["fashion-mnist"].places[-1]
    assert place.path == "/usr/share/datasets/fashion-mnist"
    package = write_folder(tmp_path / "share", idx_files(random_images(3, 5, 5), [0, 1, 2], train=2))
    entry = sources.CATALOGUE["fashion-mnist"]
    moved = replace(entry, places=(*entry.places, replace(place, path=str(package))))
    monkeypatch.setattr(sources, "CATALOGUE", {"fashion-mnist": moved})
    found = find("fashion-mnist")
    assert found is not None
    assert found.path == package
    assert read_images("fashion-mnist").name == "Fashion-MNIST"
    # The data root comes first.
    own = write_folder(root / "fashion-mnist", idx_files(random_images(4, 5, 5), [0, 1, 2, 3], train=3))
    assert locate("fashion-mnist").path == own


def test_the_root_given_comes_before_the_environment(root: Path, tmp_path: Path):
    write_folder(root / "mnist", idx_files(random_images(3, 5, 5), [0, 1, 2], train=2))
    write_folder(tmp_path / "other/mnist", idx_files(random_images(5, 5, 5), [0, 1, 2, 3, 4], train=4))
    assert len(read_images("mnist").train[0]) == 2
    assert len(read_images("mnist", root=tmp_path / "other").train[0]) == 4


def test_the_data_root_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("LRATLAS_DATA", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert data_root() == tmp_path / ".local/share/lratlas"
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    assert data_root() == Path("/xdg/lratlas")
    monkeypatch.setenv("LRATLAS_DATA", "~/data")
    assert data_root() == tmp_path / "data"
    assert data_root("here") == Path("here")


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_missing_data_set_is_explained(root: Path, name: str):
    with pytest.raises(DataError) as refusal:
        read_images(name)
    message = str(refusal.value)
    assert str(root) in message
    assert f"`lratlas data fetch {name}`" in message
    assert all(Path(download.path).name in message for download in CATALOGUE[name].downloads)
    assert ("Debian package dataset-fashion-mnist" in message) == (name == "fashion-mnist")


def test_every_download_is_what_a_place_expects():
    for entry in CATALOGUE.values():
        for download in entry.downloads:
            assert len(bytes.fromhex(download.sha256)) == 32
            assert download.url.startswith("https://")
            assert any(
                download.path == place.path or Path(download.path).parent == Path(place.path) for place in entry.places
            )


@pytest.mark.usefixtures("root")
def test_an_unknown_source_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no data set or path 'cifar-10'; give one of cifar10, "):
        read_images("cifar-10")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"notes\.txt is no kind of data"):
        read_images(str(tmp_path / "notes.txt"))


@pytest.mark.parametrize("read", [read_images, data_root])
def test_an_unknown_home_folder_is_a_sentence(read: Callable[[str], object]) -> None:
    with pytest.raises(PathError, match="~nosuchuser/x begins with a home folder that is not known here"):
        read("~nosuchuser/x")
