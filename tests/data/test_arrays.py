from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from data.makers import random_images
from lratlas.data.readers import read_images
from lratlas.errors import DataError

COLOUR = random_images(9, 3, 8, 10)  # [n, C, H, W]
LABELS = np.array([0, 2, 1, 2, 0, 0, 1, 2, 0])


def arrays(images: Any = COLOUR, labels: Any = LABELS) -> dict[str, Any]:
    return {
        "train_images": images[:6],
        "train_labels": labels[:6],
        "test_images": images[6:],
        "test_labels": labels[6:],
    }


def written(path: Path, content: dict[str, Any]) -> str:
    if path.suffix == ".npz":
        np.savez(path, **content)
    else:
        save_file({name: np.ascontiguousarray(array) for name, array in content.items()}, path)
    return str(path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("layout", ["channels first", "channels last", "grey"])
@pytest.mark.parametrize("labels", [np.uint8, np.int64])
def test_arrays_are_read_in_every_layout(tmp_path: Path, suffix: str, layout: str, labels: type):
    images = {"channels first": COLOUR, "channels last": COLOUR.transpose(0, 2, 3, 1), "grey": COLOUR[:, 0]}[layout]
    source = written(tmp_path / f"mine{suffix}", arrays(images, LABELS.astype(labels)))
    data = read_images(source)
    wanted = COLOUR[:, :1] if layout == "grey" else COLOUR
    np.testing.assert_array_equal(data.train[0], wanted[:6])
    np.testing.assert_array_equal(data.test[0], wanted[6:])
    assert data.train[1].tolist() == LABELS[:6].tolist()
    assert data.test[1].tolist() == LABELS[6:].tolist()
    assert (data.name, data.classes) == ("mine", ("0", "1", "2"))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"train_images": COLOUR}, "lacks train_labels, test_images, test_labels; it holds train_images"),
        (arrays(images=COLOUR.astype(np.float32)), "train: images are torch.float32"),
        (arrays(labels=LABELS.astype(np.float64)), "train_labels are torch.float64; labels must be whole"),
        (arrays(labels=LABELS - 1), "label -1 of image 0 is out of range"),
        (arrays(labels=np.array([0, 1, 0, 1, 0, 1, 0, 2, 0])), "test: label 2 of image 1 is out of range"),
        (arrays(labels=LABELS[:, None]), "labels are torch.int64"),
        (arrays() | {"train_labels": LABELS[:5]}, "6 images but 5 labels"),
        (arrays() | {"test_images": COLOUR[6:, :, 1:]}, "must agree"),
        (arrays(images=COLOUR[:, 0, 0]), r"have shape \(6, 10\); allowed are"),
        (arrays(images=random_images(9, 4, 5, 4)), "channels come first or last"),
        (arrays() | {"train_images": COLOUR[:0], "train_labels": LABELS[:0]}, "train: images are"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, suffix: str, content: dict[str, Any], match: str):
    source = written(tmp_path / f"mine{suffix}", content)
    with pytest.raises(DataError, match=match) as refusal:
        read_images(source)
    assert "mine" in str(refusal.value)


def test_pickled_objects_are_not_read(tmp_path: Path):
    source = written(tmp_path / "mine.npz", arrays() | {"train_labels": np.array([Path("x")] * 6, dtype=object)})
    with pytest.raises(DataError, match="cannot be read as arrays of numbers"):
        read_images(source)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("damage", ["cut", "text", "empty", "flipped"])
def test_a_damaged_file_is_refused(tmp_path: Path, suffix: str, damage: str):
    path = Path(written(tmp_path / f"mine{suffix}", arrays()))
    content = path.read_bytes()
    flipped = bytes([*content[:3], content[3] ^ 255, *content[4:]])
    path.write_bytes({"cut": content[: len(content) // 2], "text": b"hello", "empty": b"", "flipped": flipped}[damage])
    with pytest.raises(DataError, match="cannot be read"):
        read_images(str(path))


def test_a_single_array_is_refused(tmp_path: Path):
    with (tmp_path / "mine.npz").open("wb") as file:
        np.save(file, COLOUR)
    with pytest.raises(DataError, match="single array"):
        read_images(str(tmp_path / "mine.npz"))


def test_one_wrong_label_does_not_make_millions_of_classes(tmp_path: Path) -> None:
    content = arrays(labels=np.array([0, 1, 2, 0, 1, 300_000_000, 0, 1, 2]))
    with pytest.raises(DataError, match="label 300000000 is above the number of images"):
        read_images(written(tmp_path / "wrong.npz", content))


def test_classes_without_images_and_other_arrays_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    labels = np.array([0, 5, 1, 5, 0, 0, 1, 5, 0])
    source = written(tmp_path / "mine.npz", arrays(labels=labels) | {"weights": labels})
    assert read_images(source).classes == tuple("012345")
    assert caplog.messages == [
        f"{source}: arrays with other names are ignored (weights).",
        f"{source}: the training set has no images for 3 of the 6 classes (2, 3, 4);"
        " the test set has no images for 3 of the 6 classes (2, 3, 4).",
    ]


def test_nothing_is_said_of_data_that_are_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    read_images(written(tmp_path / "mine.npz", arrays()))
    assert not caplog.messages
