import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.makers import Bytes, png, random_images, write_folder, write_zip
from lratlas.data.readers import read_images
from lratlas.errors import DataError
from lratlas.paths import cache_folder

IMAGES = random_images(5, 4, 6, 3)  # [n, H, W, C]


def files(images: Bytes = IMAGES, *, test: str = "test") -> dict[str, bytes]:
    names = ("train/cat/1.png", "train/cat/2.png", "train/dog/1.png", f"{test}/cat/1.png", f"{test}/dog/1.png")
    return dict(zip(names, map(png, images), strict=True))


def write(path: Path, content: dict[str, bytes]) -> str:
    return str(write_zip(path, content) if path.suffix == ".zip" else write_folder(path, content))


def channels_first(images: Bytes) -> Bytes:
    return images.transpose(0, 3, 1, 2)


@pytest.fixture
def kept(root: Path) -> Path:
    """The folder of decoded images, empty at first."""
    assert root.parent == cache_folder().parent
    return cache_folder()


@pytest.mark.parametrize("name", ["pets", "pets.zip"])
@pytest.mark.parametrize("test", ["test", "val"])
@pytest.mark.parametrize("top", ["", "all/"])
def test_a_folder_or_zip_file_is_read_by_class(kept: Path, tmp_path: Path, name: str, test: str, top: str):
    content = {f"{top}{file}": image for file, image in files(test=test).items()}
    source = write(tmp_path / name, content | {f"{top}train/cat/notes.txt": b"x", f"{top}.hidden/a.png": b"x"})
    for _ in range(2):  # decoded, then as it was stored
        data = read_images(source)
        assert (data.name, data.classes) == ("pets", ("cat", "dog"))
        np.testing.assert_array_equal(data.train[0], channels_first(IMAGES[:3]))
        np.testing.assert_array_equal(data.test[0], channels_first(IMAGES[3:]))
        assert data.train[1].tolist() == [0, 0, 1]
        assert data.test[1].tolist() == [0, 1]
    assert len(list(kept.iterdir())) == 1


def test_grey_images_have_one_channel_and_mixed_ones_three(kept: Path, tmp_path: Path):
    grey = read_images(write(tmp_path / "grey.zip", files(IMAGES[..., 0])))
    np.testing.assert_array_equal(grey.train[0][:, 0], IMAGES[:3, ..., 0])
    assert grey.train[0].shape == (3, 1, 4, 6)
    mixed = read_images(write(tmp_path / "mixed.zip", files(IMAGES[..., 0]) | {"test/dog/1.png": png(IMAGES[4])}))
    assert mixed.train[0].shape == (3, 3, 4, 6)
    for channel in range(3):
        np.testing.assert_array_equal(mixed.train[0][:, channel], IMAGES[:3, ..., 0])
    np.testing.assert_array_equal(mixed.test[0][1], channels_first(IMAGES)[4])
    assert len(list(kept.iterdir())) == 2


def test_jpeg_files_are_decoded(kept: Path, tmp_path: Path):
    folder = tmp_path / "pets"
    for name in files():
        path = (folder / name).with_suffix(".JPEG")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (200, 100, 50)).save(path, quality=95)
    data = read_images(str(folder))
    np.testing.assert_allclose(data.train[0].double().mean((0, 2, 3)), [200, 100, 50], atol=2)
    assert kept.exists()


@pytest.mark.parametrize("packed", [False, True])
def test_tiny_imagenet_has_a_layout_of_its_own(kept: Path, root: Path, packed: bool, caplog: pytest.LogCaptureFixture):
    content = {
        "wnids.txt": b"n2\nn1\n",
        "train/n1/images/n1_0.JPEG": png(IMAGES[0]),
        "train/n1/n1_boxes.txt": b"n1_0.JPEG\t0\t0\t1\t1\n",
        "train/n2/images/n2_0.JPEG": png(IMAGES[1]),
        "test/images/test_0.JPEG": png(IMAGES[2]),
        "val/images/val_0.JPEG": png(IMAGES[3]),
        "val/images/val_1.JPEG": png(IMAGES[4]),
        "val/val_annotations.txt": b"val_0.JPEG\tn2\t0\t0\t1\t1\nval_1.JPEG\tn1\t0\t0\t1\t1\n",
    }
    if packed:
        content = {f"tiny-imagenet-200/{name}": data for name, data in content.items()}
    write(root / ("tiny-imagenet-200.zip" if packed else "tiny-imagenet-200"), content)
    data = read_images("tiny-imagenet")
    assert (data.name, data.classes) == ("Tiny ImageNet", ("n1", "n2"))
    np.testing.assert_array_equal(data.train[0], channels_first(IMAGES[:2]))
    # Sorted by class, then by name.
    np.testing.assert_array_equal(data.test[0], channels_first(IMAGES[[4, 3]]))
    assert data.test[1].tolist() == [0, 1]
    assert kept.exists()
    assert not caplog.messages


def test_the_jpeg_copy_of_cifar10_says_so(root: Path):
    write(root / "cifar10-jpeg.zip", files())
    assert read_images("cifar10").name == "CIFAR-10 (JPEG copy)"


@pytest.mark.parametrize("name", ["pets", "pets.zip"])
def test_what_is_kept_is_used_and_is_made_again_if_damaged(kept: Path, tmp_path: Path, name: str):
    source = write(tmp_path / name, files())
    read_images(source)
    (file,) = kept.iterdir()
    whole = file.read_bytes()
    made = file.stat().st_ino
    read_images(source)
    assert file.stat().st_ino == made
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), whole.replace(b"dog", b"dig"), b"", b"x" * 100):
        file.write_bytes(damaged)
        made = file.stat().st_ino
        data = read_images(source)
        np.testing.assert_array_equal(data.test[0], channels_first(IMAGES[3:]))
        assert file.stat().st_ino != made
        assert file.stat().st_size == len(whole)
    assert list(kept.iterdir()) == [file]


@pytest.mark.parametrize("name", ["pets", "pets.zip"])
def test_changed_images_are_decoded_anew(kept: Path, tmp_path: Path, name: str):
    source = write(tmp_path / name, files())
    before = read_images(source)
    write(tmp_path / name, files(255 - IMAGES))
    changed = tmp_path / name if name.endswith("zip") else tmp_path / name / "test/dog/1.png"
    os.utime(changed, (1, 1))
    np.testing.assert_array_equal(read_images(source).train[0], 255 - before.train[0].numpy())
    assert len(list(kept.iterdir())) == 2


def test_decoding_works_where_nothing_can_be_kept(kept: Path, tmp_path: Path):
    kept.write_text("a file, not a folder", encoding="utf-8")
    data = read_images(write(tmp_path / "pets.zip", files()))
    np.testing.assert_array_equal(data.train[0], channels_first(IMAGES[:3]))


def test_the_folder_of_decoded_images_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in ("LRATLAS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert cache_folder() == tmp_path / "home/.cache/lratlas"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/lratlas"
    monkeypatch.setenv("LRATLAS_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def sixteen_bits() -> bytes:
    file = io.BytesIO()
    Image.new("I;16", (6, 4)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("name", ["pets", "pets.zip"])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"test/dog/1.png": png(IMAGES[0, :3])}, "image test/dog/1.png has 6x3 pixels, but train/cat/1.png has 6x4"),
        ({"train/dog/1.png": b"no image"}, "image train/dog/1.png cannot be decoded"),
        ({"train/dog/1.png": png(IMAGES[0])[:60]}, "image train/dog/1.png cannot be decoded"),
        ({"train/dog/1.png": b""}, "image train/dog/1.png cannot be decoded"),
        ({"train/cat/2.png": sixteen_bits()}, "image train/cat/2.png is of mode I;16; it must have 8 bits"),
        ({"train/1.png": png(IMAGES[0])}, "train/1.png is in no class folder"),
        ({"test/cow/1.png": png(IMAGES[0])}, "test images of class 'cow', but no training images"),
        ({"val/val_annotations.txt": b""}, "is empty"),
        ({"val/val_annotations.txt": b"\xff\xfe"}, "cannot be read"),
        ({"val/val_annotations.txt": b"a.png cat\n"}, "line 1 of val/val_annotations.txt must hold"),
        ({"val/val_annotations.txt": b"a.png\tcat\n"}, "names a.png, which is not in val/images/"),
    ],
)
def test_image_files_that_cannot_be_used_are_named(
    root: Path, tmp_path: Path, name: str, change: dict[str, bytes], match: str
):
    source = write(tmp_path / name, files() | change)
    with pytest.raises(DataError, match=match) as refusal:
        read_images(source)
    assert str(tmp_path / name) in str(refusal.value)
    assert not root.exists()


@pytest.mark.parametrize("name", ["pets", "pets.zip"])
@pytest.mark.parametrize(
    ("lacking", "match"), [("train", "no images in train/<class>/"), ("test", "no test images"), ("", "no images in")]
)
def test_a_set_without_images_is_refused(root: Path, tmp_path: Path, name: str, lacking: str, match: str):
    rest = {file: image for file, image in files().items() if not file.startswith(lacking)}
    source = write(tmp_path / name, rest | {"notes.txt": b"x"})
    with pytest.raises(DataError, match=match):
        read_images(source)
    assert not root.exists()


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_zip_file_is_refused(root: Path, tmp_path: Path, damage: str):
    path = Path(write(tmp_path / "pets.zip", files()))
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "text": b"hello", "empty": b""}[damage])
    with pytest.raises(DataError, match=r"pets\.zip is truncated or not a zip file"):
        read_images(str(path))
    assert not root.exists()


def test_a_zip_file_of_a_later_version_is_refused(root: Path, tmp_path: Path):
    path = Path(write(tmp_path / "pets.zip", files()))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 99  # the version that is needed to extract the first file
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"pets\.zip is truncated or not a zip file \(zip file version 9\.9\)"):
        read_images(str(path))
    assert not root.exists()


def test_a_flipped_byte_in_a_zip_file_is_noticed(root: Path, tmp_path: Path):
    path = Path(write(tmp_path / "pets.zip", files()))
    content = bytearray(path.read_bytes())
    at = content.index(b"IDAT") + 6
    content[at] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"train/cat/1\.png cannot be decoded \(Bad CRC-32"):
        read_images(str(path))
    assert not root.exists()


def test_a_broken_link_in_a_folder_is_named(root: Path, tmp_path: Path):
    source = write(tmp_path / "pets", files())
    (tmp_path / "pets/train/cat/3.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"3\.png cannot be read"):
        read_images(source)
    assert not root.exists()


def test_jpeg_files_by_their_other_names_are_read(kept: Path, tmp_path: Path):
    stored = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 100, 50)).save(stored, format="JPEG")
    names = ("train/cat/1.jfif", "train/cat/2.JFIF", "train/dog/1.jpe", "test/cat/1.jpg", "test/dog/1.jfif")
    data = read_images(write(tmp_path / "pets.zip", dict.fromkeys(names, stored.getvalue())))
    assert (len(data.train[0]), len(data.test[0])) == (3, 2)
    assert kept.exists()


@pytest.mark.parametrize("name", ["pets", "pets.zip"])
@pytest.mark.parametrize("top", ["", "all/"])
def test_what_is_not_read_is_counted_and_named(
    kept: Path, tmp_path: Path, name: str, top: str, caplog: pytest.LogCaptureFixture
):
    others = ("train/cat/a.heic", "train/cat/b.txt", "train/fox/c.txt", "val/cat/1.png", "test/owl/notes.md")
    hidden = ("train/.DS_Store", "train/cat/._1.png", "__MACOSX/train/x.png", "train/dog/Thumbs.db")
    content = files() | dict.fromkeys((*others, *hidden), b"x")
    source = write(tmp_path / name, {f"{top}{file}": image for file, image in content.items()})
    read_images(source)
    read_images(source)  # as it was stored
    assert kept.exists()
    said = (
        f"{source}: 5 files are skipped, because they are not images in test/<class>/ or train/<class>/"
        " (test/owl/notes.md, train/cat/a.heic, train/cat/b.txt and 2 more); 2 class folders have no images"
        " (test/owl, train/fox)."
    )
    assert caplog.messages == [said, said]


def test_an_empty_class_folder_is_named(kept: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = Path(write(tmp_path / "pets", files()))
    (folder / "train/bear/inner").mkdir(parents=True)
    (folder / "train/.cache").mkdir()
    (folder / "notes").mkdir()
    read_images(str(folder))
    with zipfile.ZipFile(write(tmp_path / "pets.zip", files()), "a") as file:
        file.mkdir("train/bear")
    read_images(str(tmp_path / "pets.zip"))
    assert kept.exists()
    ending = "1 class folder has no images (train/bear)."
    assert caplog.messages == [f"{folder}: {ending}", f"{folder}.zip: {ending}"]


def test_one_file_that_is_not_read_is_one_file(kept: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = write(tmp_path / "pets", files() | {"README": b"x"})
    read_images(source)
    assert kept.exists()
    assert caplog.messages == [
        f"{source}: 1 file is skipped, because it is not an image in test/<class>/ or train/<class>/ (README)."
    ]


def test_a_class_without_test_images_is_named(kept: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    content = files()
    del content["test/dog/1.png"]
    source = write(tmp_path / "pets", content)
    read_images(source)
    assert kept.exists()
    assert caplog.messages == [f"{source}: the test set has no images for 1 of the 2 classes (dog)."]
