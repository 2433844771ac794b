"""Tiny files in the formats of the readers, written by other means than the package's own."""

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]

CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def random_images(*shape: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def cifar10_files(images: Bytes, labels: list[int]) -> dict[str, bytes]:
    """Six files of equal numbers of records; the last is the test set. Images are [n, 3, 32, 32]."""
    records = [bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True)]
    share = len(records) // 6
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    files = {name: b"".join(records[k * share : (k + 1) * share]) for k, name in enumerate(names)}
    return files | {"batches.meta.txt": ("\n".join(CIFAR10_NAMES) + "\n\n").encode()}


def cifar100_files(images: Bytes, labels: list[int], *, train: int) -> dict[str, bytes]:
    """Train and test file; the coarse label is always 19."""
    records = [bytes([19, label]) + image.tobytes() for image, label in zip(images, labels, strict=True)]
    names = "\n".join(f"thing{k}" for k in range(100)) + "\n"
    return {
        "train.bin": b"".join(records[:train]),
        "test.bin": b"".join(records[train:]),
        "fine_label_names.txt": names.encode(),
    }


def idx(array: Bytes) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def idx_files(images: Bytes, labels: list[int], *, train: int) -> dict[str, bytes]:
    """The four files of MNIST; images are [n, H, W]."""
    marks = np.array(labels, np.uint8)
    return {
        "train-images-idx3-ubyte": idx(images[:train]),
        "train-labels-idx1-ubyte": idx(marks[:train]),
        "t10k-images-idx3-ubyte": idx(images[train:]),
        "t10k-labels-idx1-ubyte": idx(marks[train:]),
    }


def gzipped(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()}


def png(image: Bytes) -> bytes:
    """An image [H, W] or [H, W, 3] as a file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def write_tar(path: Path, files: Mapping[str, bytes], *, top: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path
