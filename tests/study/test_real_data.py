"""Tasks on real images: the copies of this machine if they are there, else files made here in their layout."""

import io
import math
import zipfile
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.makers import CIFAR10_NAMES, gzipped, idx_files, write_folder
from lratlas.config.imaging import image_task
from lratlas.training.prepared import Prepared, make_model

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
JPEG = Path(__file__).parents[3] / "shared/data/cifar10-jpeg.zip"
PER_CLASS = {"train": 6, "test": 3}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LRATLAS_DATA", str(tmp_path / "root"))
    monkeypatch.setenv("LRATLAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "root"


def lit(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def assert_balanced_and_ready(task: Prepared, *, channels: int, size: int) -> None:
    """Ten equally frequent classes of images of that size, normalised, that an untrained SI model tells apart badly."""
    assert tuple(task.train[0].shape[1:]) == (channels, size, size)
    for _, labels in (task.train, task.test):
        counts = torch.bincount(labels, minlength=10)
        assert len(counts) == 10
        assert len(counts.unique()) == 1
    assert task.chance_loss == pytest.approx(math.log(10))
    shown = task.inputs(task.train[0]).double()
    assert torch.allclose(shown.mean((0, 2, 3)), torch.zeros(channels, dtype=torch.float64), atol=1e-4)
    assert torch.allclose(shown.std((0, 2, 3), correction=0), torch.ones(channels, dtype=torch.float64), atol=1e-4)
    assert len(torch.unique(task.train[0].flatten(1), dim=0)) == len(task.train[0])
    with torch.no_grad():
        outputs = make_model(task, 1)(task.inputs(task.test[0]))
    assert tuple(outputs.shape) == (len(task.test[0]), 10)


def test_fashion_mnist_as_debian_installs_it(root: Path):
    if not DEBIAN.is_dir():
        labels = [each % 10 for each in range(120)]
        write_folder(root / "fashion-mnist", gzipped(idx_files(lit(120, 28, 28), labels, train=80)))
    task = image_task(0, data="fashion-mnist", width=2, images=60, test_images=30, batch_size=20).prepared
    assert (len(task.train[0]), len(task.test[0])) == (60, 30)
    assert_balanced_and_ready(task, channels=1, size=28)
    assert "Fashion-MNIST" in task.name


def jpeg(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    return file.getvalue()


def made_up() -> dict[str, bytes]:
    images = lit(10, 9, 32, 32, 3)
    return {
        f"{split}/{name}/{number:04}.jpg": jpeg(images[label, number + (6 if split == "test" else 0)])
        for split, count in PER_CLASS.items()
        for label, name in enumerate(CIFAR10_NAMES)
        for number in range(count)
    }


def part_of(archive: Path) -> dict[str, bytes]:
    """The first images of each class."""
    taken: Counter[str] = Counter()
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(archive) as file:
        for name in sorted(name for name in file.namelist() if name.endswith(".jpg")):
            folder = name.rpartition("/")[0]
            taken[folder] += 1
            if taken[folder] <= PER_CLASS[folder.split("/")[-2]]:
                found[name] = file.read(name)
    return found


def test_cifar10_as_a_zip_file_of_jpeg_images(root: Path, monkeypatch: pytest.MonkeyPatch):
    files = part_of(JPEG) if JPEG.is_file() else made_up()
    root.mkdir()
    with zipfile.ZipFile(root / "cifar10-jpeg.zip", "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    rule = {"name": "sphere_sgd", "radius": 28.0}
    build = partial(image_task, 0, data="cifar10", model="resnet18", width=2, batch_size=20, rule=rule)
    task = build().prepared
    assert (len(task.train[0]), len(task.test[0])) == (60, 30)
    assert_balanced_and_ready(task, channels=3, size=32)
    assert "JPEG copy" in task.name
    # Decoded once: without a decoder the second time gives the same bytes.
    monkeypatch.setattr(Image, "open", None)
    assert torch.equal(build().prepared.train[0], task.train[0])
    # Airplanes come first: classes are in the order of CIFAR-10's labels.
    first = next(content for name, content in sorted(files.items()) if "train/airplane/" in name)
    monkeypatch.undo()
    with Image.open(io.BytesIO(first)) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).movedim(-1, 0)
    assert any(torch.equal(pixels, each) for each in task.train[0][task.train[1] == 0])
