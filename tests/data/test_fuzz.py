"""Whatever stands in a file of data: it is read, or refused in a sentence."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from data.makers import cifar10_files, cifar100_files, random_images
from fuzzing import mutated, refusal
from lratlas.data.readers import read_images
from lratlas.errors import DataError

fuzzed = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def tarred(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"batches/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def pictures(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(random_images(6, 6, 3)).save(buffer, kind)
    return buffer.getvalue()


TEN = cifar10_files(random_images(6, 3, 32, 32), [0, 1, 2, 3, 4, 9])
HUNDRED = cifar100_files(random_images(3, 3, 32, 32), [0, 50, 99], train=2)
PICTURES = {kind: pictures(kind) for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP")}


@pytest.mark.parametrize(
    ("name", "folder", "files"),
    [
        ("cifar10", "cifar-10-batches-bin", TEN),
        ("cifar100", "cifar-100-binary", HUNDRED),
    ],
)
@fuzzed
@given(data=st.data())
def test_any_cifar_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, folder: str, files: dict[str, bytes], data: st.DataObject
):
    root = tmp_path_factory.mktemp("root")
    (root / folder).mkdir()
    spoiled = data.draw(st.sampled_from(sorted(files)))
    for each, good in files.items():
        (root / folder / each).write_bytes(data.draw(mutated(good)) if each == spoiled else good)
    assert "\n" not in refusal(lambda: read_images(name, root=root), DataError)


@fuzzed
@given(data=st.data())
def test_any_packed_cifar_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    root = tmp_path_factory.mktemp("root")
    (root / "cifar-10-binary.tar.gz").write_bytes(data.draw(mutated(tarred(TEN)) | st.binary(max_size=60)))
    assert "\n" not in refusal(lambda: read_images("cifar10", root=root), DataError)


def test_a_packed_cifar_that_ends_within_its_gzip_header_is_refused(tmp_path: Path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(DataError, match="truncated or not a gzipped tar file"):
        read_images("cifar10", root=tmp_path)


@pytest.mark.parametrize("kind", PICTURES)
@fuzzed
@given(data=st.data())
def test_any_image_in_a_folder_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("root")
        patch.setenv("LRATLAS_CACHE", str(root / "cache"))
        ending = {"JPEG": "jpg", "TIFF": "tif"}.get(kind, kind.lower())
        for part in ("train", "test"):
            folder = root / "images" / part / "cat"
            folder.mkdir(parents=True)
            good = PICTURES[kind]
            (folder / f"1.{ending}").write_bytes(data.draw(st.just(good) | mutated(good) | st.binary(max_size=60)))
        assert "\n" not in refusal(lambda: read_images(str(root / "images")), DataError)


@fuzzed
@given(data=st.data())
def test_any_decoded_images_that_were_kept_are_read_or_decoded_again(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("root")
        patch.setenv("LRATLAS_CACHE", str(root / "cache"))
        for part in ("train", "test"):
            (root / "images" / part / "cat").mkdir(parents=True)
            (root / "images" / part / "cat" / "1.png").write_bytes(PICTURES["PNG"])
        wanted = read_images(str(root / "images"))
        (kept,) = (root / "cache").iterdir()
        kept.write_bytes(data.draw(mutated(kept.read_bytes()) | st.binary(max_size=60)))
        assert torch.equal(read_images(str(root / "images")).train[0], wanted.train[0])


@fuzzed
@given(data=st.data())
def test_any_safetensors_of_images_are_read_or_refused(tmp_path: Path, data: st.DataObject):
    images, labels = torch.zeros(4, 1, 4, 4, dtype=torch.uint8), torch.arange(4) % 2
    names = ("train_images", "train_labels", "test_images", "test_labels")
    good = save(dict(zip(names, (images, labels, images.clone(), labels.clone()), strict=True)))
    path = tmp_path / "images.safetensors"
    path.write_bytes(data.draw(mutated(good) | st.binary(max_size=60)))
    assert "\n" not in refusal(lambda: read_images(str(path)), DataError)
