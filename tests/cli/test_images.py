"""Studies of images from the command line: the options of presets, the data root, and what is missing."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.helpers import Ran
from data.makers import gzipped, idx_files, write_folder
from lratlas.api import explore
from lratlas.atlas import Atlas, load
from lratlas.config.tasks import tasks_from
from lratlas.data import sources

pytestmark = pytest.mark.usefixtures("without_figures")

SIZES: dict[str, Any] = {
    "--width": 2,
    "--images": 130,
    "--test-images": 30,
    "--epochs": 2,
    "--finetune-epochs": 1,
    "--repeats": 1,
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data root; nothing is found elsewhere on this machine."""
    monkeypatch.setenv("LRATLAS_DATA", str(tmp_path / "root"))
    below = {
        name: replace(entry, places=tuple(place for place in entry.places if not place.path.startswith("/")))
        for name, entry in sources.CATALOGUE.items()
    }
    monkeypatch.setattr(sources, "CATALOGUE", below)
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def write_fashion(folder: Path) -> None:
    """400 and 100 images of 8 x 8 pixels in the layout of Fashion-MNIST; brighter in the upper part, class by class."""
    draw = np.random.default_rng(0)
    labels = np.arange(500) % 10
    images = draw.integers(0, 60, (500, 8, 8)) + 18 * labels[:, None, None] * (np.arange(8) < 5)[:, None]
    files = gzipped(idx_files(images.astype(np.uint8), labels.tolist(), train=400))
    write_folder(folder / "fashion-mnist", files)
    assert gzip.decompress(files["train-labels-idx1-ubyte.gz"])[8:18] == bytes(range(10))


@pytest.mark.usefixtures("root")
def test_a_preset_with_every_option_makes_that_study(
    tmp_path: Path, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
):
    """The study's spec and where its data are found; it is not trained here."""

    def untrained(_spec: object, *, folder: str, **_: object) -> Atlas:
        return load(folder)

    monkeypatch.setattr(explore, "explore", untrained)
    write_fashion(tmp_path / "elsewhere")
    words = [word for pair in SIZES.items() for word in pair]
    lrs = ("--lrs", "1e-3", "1e-1", "1")
    ran = run(
        "reproduce", "fashion-convnet", "-f", tmp_path / "study", *words, *lrs,
        "--scale", "0.5", "--data-root", tmp_path / "elsewhere", "--workers", 1, "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["folder"] == str(tmp_path / "study")
    spec = load(tmp_path / "study").spec
    assert spec.pretrain.lrs == (1e-3, 1e-2, 1e-1)
    assert spec.task.options == {
        "data": "fashion-mnist",
        "model": "convnet",
        "width": 2,
        "scale_invariant": True,
        "images": 130,
        "test_images": 30,
    }
    assert spec.finetune is not None
    assert (spec.pretrain.epochs, spec.pretrain.repeats, spec.finetune.epochs) == (2, 1, 1)
    task = tasks_from(spec.task).of(0)
    assert [len(part[0]) for part in (task.train, task.test)] == [130, 30]


@pytest.mark.parametrize("preset", ["fashion-convnet", "cifar10-convnet", "cifar100-resnet", "tinyimagenet-resnet"])
def test_without_the_data_one_sentence_says_what_to_put_where(
    preset: str, root: Path, tmp_path: Path, refused: Callable[..., str]
):
    said = refused("reproduce", preset, "-f", tmp_path / "study", "--workers", 1)
    name = {"fashion-convnet": "fashion-mnist", "tinyimagenet-resnet": "tiny-imagenet"}.get(
        preset, preset.split("-", maxsplit=1)[0]
    )
    files = [Path(download.path).name for download in sources.CATALOGUE[name].downloads]
    assert f"is not in {root}; run `lratlas data fetch {name}`" in said
    assert all(file in said for file in files)
    assert ("install the Debian package dataset-fashion-mnist" in said) == (name == "fashion-mnist")
    assert not (tmp_path / "study/plan.json").exists()


WORDS: list[tuple[str, str]] = [
    ("cifar10-convnet --scale 0", "--scale is '0', but must be a number above 0 and at most 1"),
    ("cifar10-convnet --scale 1.5", "--scale is '1.5', but must be a number above 0 and at most 1"),
    ("cifar10-convnet --scale half", "--scale is 'half', but must be a number above 0 and at most 1"),
    ("cifar10-convnet --width 0", "--width is '0', but must be a whole number of at least 1"),
    ("cifar10-convnet --images 1.5", "--images is '1.5', but must be a whole number of at least 1"),
    ("cifar10-convnet --test-images none", "--test-images is 'none', but must be a whole number of at least 1"),
    ("cifar10-convnet --epochs -3", "--epochs is '-3', but must be a whole number of at least 1"),
    ("cifar10-convnet --finetune-epochs 0", "--finetune-epochs is '0', but must be a whole number of at least 1"),
    ("cifar10-convnet --lrs 1 0.1 3", "low must not exceed high"),
    ("cifar10-convnet --lrs 0 0.1 3", "low must be a positive finite number"),
    ("cifar10-convnet --lrs 0.1 1 0", "per_decade must be a whole number of at least 1"),
    ("cifar10-convnet --lrs 0.1 1", "--lrs"),
    ("digits --width 3", "The preset digits has no width; only studies of images can change size"),
    ("ticks --scale 0.5", "The preset ticks has no scale; only studies of images can change size"),
]


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(("words", "said"), WORDS)
def test_a_wrong_option_ends_with_one_sentence(words: str, said: str, tmp_path: Path, refused: Callable[..., str]):
    assert said in refused("reproduce", *words.split(), "-f", tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_data_root_serves_explore_and_resume_too(root: Path, tmp_path: Path, refused: Callable[..., str]):
    spec = tmp_path / "images.toml"
    spec.write_text(
        '[task]\npreset = "images"\noptions = { data = "mnist" }\nrule = { name = "sphere_sgd" }\n'
        "[pretrain]\nlrs = [0.1]\nsteps = 1\n"
    )
    other = tmp_path / "other"
    assert str(root) in refused("explore", spec, "-f", tmp_path / "study")
    assert str(other) in refused("explore", spec, "-f", tmp_path / "study", "--data-root", other)
    assert str(other / "deeper") in refused("resume", tmp_path / "study", "--data-root", other / "deeper")
