"""Data that have no end, and headers that state more than any machine has."""

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.makers import png, random_images, write_folder
from lratlas.data.images import NAMES
from lratlas.data.readers import read_images
from lratlas.errors import DataError

MANY = 2**42


def npz() -> bytes:
    """An array file whose every array has terabytes, according to its header."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (MANY, 8, 8)})
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name in NAMES:
            file.writestr(f"{name}.npy", header.getvalue())
    return packed.getvalue()


def safetensors() -> bytes:
    entry = {"dtype": "U8", "shape": [MANY, 8, 8], "data_offsets": [0, MANY * 64]}
    header = json.dumps(dict.fromkeys(NAMES, entry)).encode()
    return struct.pack("<Q", len(header)) + header


def long_header() -> bytes:
    return struct.pack("<Q", MANY) + b"{"


@pytest.mark.parametrize(
    ("name", "made"), [("many.npz", npz), ("many.safetensors", safetensors), ("long.safetensors", long_header)]
)
def test_arrays_of_terabytes_are_refused(name: str, made: Callable[[], bytes], tmp_path: Path):
    (tmp_path / name).write_bytes(made())
    with pytest.raises(DataError, match="cannot be read as arrays of numbers"):
        read_images(str(tmp_path / name))


def test_idx_images_of_terabytes_are_refused(tmp_path: Path):
    (tmp_path / "mnist").mkdir()
    for split in ("train", "t10k"):
        images = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**32 - 1, 2**16, 2**16) + bytes(8)
        (tmp_path / "mnist" / f"{split}-images-idx3-ubyte").write_bytes(images)
        (tmp_path / "mnist" / f"{split}-labels-idx1-ubyte").write_bytes(
            bytes((0, 0, 8, 1)) + struct.pack(">I", 2**31) + bytes(8)
        )
    with pytest.raises(DataError, match="its header says 4294967295 x 65536 x 65536"):
        read_images("mnist", root=tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", ["train/cat/pipe.png", "test/cat/pipe.png", "notes.txt"])
def test_a_pipe_or_device_among_images_is_named_and_not_waited_for(kind: str, name: str, tmp_path: Path):
    image = png(random_images(4, 4))
    write_folder(tmp_path, {"train/cat/1.png": image, "test/cat/1.png": image})
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(DataError, match=rf"{name} cannot be read \(it is not a regular file\)"):
        read_images(str(tmp_path))


@pytest.mark.parametrize("name", ["data_batch_1.bin", "batches.meta.txt"])
def test_a_pipe_among_binary_files_is_named(name: str, tmp_path: Path):
    (tmp_path / "cifar-10-batches-bin").mkdir()
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").touch()
    for number in range(1, 6):
        (tmp_path / "cifar-10-batches-bin" / f"data_batch_{number}.bin").touch()
    (tmp_path / "cifar-10-batches-bin" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "cifar-10-batches-bin" / name)
    with pytest.raises(DataError, match=rf"{name} cannot be read \(it is not a regular file\)"):
        read_images("cifar10", root=tmp_path)
