import gzip
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data.makers import (
    CIFAR10_NAMES,
    cifar10_files,
    cifar100_files,
    gzipped,
    idx,
    idx_files,
    png,
    random_images,
    write_folder,
    write_tar,
    write_zip,
)
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
    with pytest.raises(DataError, match="no data set or path 'cifar-10'; choose one of cifar10, "):
        read_images("cifar-10")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"notes\.txt cannot be read as data"):
        read_images(str(tmp_path / "notes.txt"))


@pytest.mark.parametrize("read", [read_images, data_root])
def test_an_unknown_home_folder_is_a_sentence(read: Callable[[str], object]) -> None:
    with pytest.raises(PathError, match="~nosuchuser/x begins with an unknown home folder"):
        read("~nosuchuser/x")


COLOUR = random_images(12, 3, 32, 32)
COLOUR_LABELS = [3, 1, 9, 0, 7, 7, 2, 5, 4, 6, 8, 0]
GREY = random_images(7, 28, 28)
GREY_LABELS = [5, 0, 9, 1, 1, 3, 8]

Change = Callable[[bytes], bytes]
Damage = tuple[str, Change, str]  # file, what happens to it, what is said

CIFAR_DAMAGE: list[Damage] = [
    ("data_batch_3.bin", lambda data: data[:-1], r"data_batch_3\.bin has 6145 bytes, not a multiple of 3073"),
    ("data_batch_3.bin", lambda _: b"", "has 0 bytes"),
    ("data_batch_2.bin", lambda data: data[:3073], r"data_batch_2\.bin holds 1 images.*must have the same number"),
    ("test_batch.bin", lambda data: b"\x0a" + data[1:], r"test_batch\.bin: label 10 of image 0 is out of range"),
    ("batches.meta.txt", lambda _: b"\n", "has no class names"),
]
IDX_DAMAGE: list[Damage] = [
    ("train-images-idx3-ubyte", lambda data: data[:-1], "has 3935 bytes.* 5 x 28 x 28 .*truncated"),
    ("train-images-idx3-ubyte", lambda data: data[:9], "truncated"),
    ("train-images-idx3-ubyte", lambda data: data + b"x", "damaged"),
    ("train-images-idx3-ubyte", lambda _: b"", "not an IDX file"),
    ("t10k-labels-idx1-ubyte", lambda data: b"\0\0\x0d\1" + data[4:], "begins with 00000d01, not 00000801"),
    ("train-labels-idx1-ubyte", lambda _: idx(np.zeros(4, np.uint8)), "5 images but 4 labels"),
    ("train-labels-idx1-ubyte", lambda data: data[:-1] + b"\x0a", "label 10 of image 4 is out of range"),
    ("t10k-images-idx3-ubyte", lambda _: idx(np.zeros((2, 28, 27), np.uint8)), "must agree"),
    ("t10k-images-idx3-ubyte", lambda _: idx(np.zeros((0, 28, 28), np.uint8)), "must be uint8"),
    ("train-labels-idx1-ubyte", lambda _: b"\x1f\x8b\x08 no gzip file", "truncated or not a gzip file"),
    ("train-labels-idx1-ubyte", lambda data: gzip.compress(data)[:-9], "truncated or not a gzip file"),
]
TAR_DAMAGE: list[Change] = [lambda data: data[: len(data) // 2], lambda _: b"no archive", lambda _: b""]


def cifar10() -> dict[str, bytes]:
    return cifar10_files(COLOUR, COLOUR_LABELS)


def mnist() -> dict[str, bytes]:
    return idx_files(GREY, GREY_LABELS, train=5)


def changed(files: Mapping[str, bytes], name: str, change: Change) -> dict[str, bytes]:
    return {**files, name: change(files[name])}


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10_is_read_from_its_folder_and_from_its_tar_file(root: Path, packed: bool):
    if packed:
        write_tar(root / "cifar-10-binary.tar.gz", cifar10(), top="cifar-10-batches-bin")
    else:
        write_folder(root / "cifar-10-batches-bin", cifar10())
    data = read_images("cifar10")
    assert (data.name, data.classes) == ("CIFAR-10", tuple(CIFAR10_NAMES))
    np.testing.assert_array_equal(data.train[0], COLOUR[:10])
    np.testing.assert_array_equal(data.test[0], COLOUR[10:])
    assert data.train[1].tolist() == COLOUR_LABELS[:10]
    assert data.test[1].tolist() == COLOUR_LABELS[10:]
    assert data.train[1].dtype == torch.int64


@pytest.mark.parametrize("packed", [False, True])
def test_cifar100_has_its_fine_labels(root: Path, packed: bool):
    files = cifar100_files(COLOUR[:5], [99, 0, 42, 7, 20], train=3)
    if packed:
        write_tar(root / "cifar-100-binary.tar.gz", files, top="cifar-100-binary")
    else:
        write_folder(root / "cifar-100-binary", files)
    data = read_images("cifar100")
    assert data.name == "CIFAR-100"
    assert data.classes[:2] == ("thing0", "thing1")
    assert len(data.classes) == 100
    np.testing.assert_array_equal(data.train[0], COLOUR[:3])
    assert data.train[1].tolist() == [99, 0, 42]
    assert data.test[1].tolist() == [7, 20]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "folder", "title", "third"),
    [
        ("mnist", "mnist", "MNIST", "2"),
        ("mnist", "MNIST/raw", "MNIST", "2"),
        ("fashion-mnist", "fashion-mnist", "Fashion-MNIST", "Pullover"),
        ("fashion-mnist", "FashionMNIST/raw", "Fashion-MNIST", "Pullover"),
    ],
)
def test_idx_files_are_read_gzipped_or_not(root: Path, packed: bool, name: str, folder: str, title: str, third: str):
    write_folder(root / folder, gzipped(mnist()) if packed else mnist())
    data = read_images(name)
    assert (data.name, data.classes[2], len(data.classes)) == (title, third, 10)
    np.testing.assert_array_equal(data.train[0][:, 0], GREY[:5])
    np.testing.assert_array_equal(data.test[0][:, 0], GREY[5:])
    assert data.train[1].tolist() == GREY_LABELS[:5]
    assert data.test[1].tolist() == GREY_LABELS[5:]


def test_a_gzipped_file_without_its_ending_is_read(root: Path):
    write_folder(root / "mnist", {name: gzip.compress(content) for name, content in mnist().items()})
    np.testing.assert_array_equal(read_images("mnist").train[0][:, 0], GREY[:5])


@pytest.mark.parametrize(("name", "change", "match"), CIFAR_DAMAGE)
def test_a_damaged_cifar_file_is_named(root: Path, name: str, change: Change, match: str):
    write_folder(root / "cifar-10-batches-bin", changed(cifar10(), name, change))
    with pytest.raises(DataError, match=match):
        read_images("cifar10")


@pytest.mark.parametrize("missing", ["data_batch_4.bin", "test_batch.bin", "batches.meta.txt"])
def test_a_missing_cifar_file_is_named(root: Path, missing: str):
    files = cifar10()
    del files[missing]
    folder = write_folder(root / "cifar-10-batches-bin", files)
    with pytest.raises(DataError, match=f"{missing} is missing"):
        read_images("cifar10")
    write_tar(root / "cifar-10-binary.tar.gz", files, top="cifar-10-batches-bin")
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(DataError, match=f"lacks {missing}"):
        read_images("cifar10")


@pytest.mark.parametrize("change", TAR_DAMAGE)
def test_a_damaged_tar_file_is_refused(root: Path, change: Change):
    path = write_tar(root / "cifar-10-binary.tar.gz", cifar10(), top="cifar-10-batches-bin")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz"):
        read_images("cifar10")


@pytest.mark.parametrize(("name", "change", "match"), IDX_DAMAGE)
def test_a_damaged_idx_file_is_refused(root: Path, name: str, change: Change, match: str):
    write_folder(root / "mnist", changed(mnist(), name, change))
    with pytest.raises(DataError, match=match):
        read_images("mnist")


def test_a_file_that_is_only_called_gzipped_is_refused(root: Path):
    write_folder(root / "mnist", {f"{name}.gz": content for name, content in mnist().items()})
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is truncated or not a gzip file"):
        read_images("mnist")


def test_a_missing_idx_file_is_named(root: Path):
    folder = write_folder(root / "mnist", mnist())
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte \(or t10k-labels-idx1-ubyte\.gz\) is missing in"):
        read_images("mnist")
