"""Tasks on images from the options of a spec."""

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch

from lratlas.config.imaging import image_task
from lratlas.config.sections import TaskSpec
from lratlas.config.tasks import tasks_from
from lratlas.data import sources
from lratlas.errors import DataError, LRAtlasError, SpecError, TaskError
from lratlas.models.convnet import ConvNet
from lratlas.models.resnet import ResNet18
from lratlas.models.vit import ViT
from lratlas.training.fingerprint import fingerprint
from lratlas.training.prepared import Prepared
from study.pictures import SIZE, TEST, TRAIN

RESNET: dict[str, Any] = {"model": "resnet18", "rule": {"name": "sphere_sgd", "radius": 28.0}}
VIT: dict[str, Any] = {"model": "vit", "width": 6, "patch": 2, "depth": 1, "heads": 2, "mlp": 5, "rule": "adam"}


def task(source: Path, **options: Any) -> Prepared:
    usual: dict[str, Any] = {"data": str(source), "width": 2, "batch_size": 10, "rule": "sphere_sgd"}
    return image_task(0, **(usual | options)).prepared


def normalised(made: Prepared) -> torch.Tensor:
    """The test images, from their bytes, by the mean and deviation of all pixels of the training images taken."""
    seen = made.train[0].double() / 255
    return (made.test[0].double() / 255 - seen.mean()) / seen.std(correction=0)


def test_a_task_has_the_images_of_the_file_and_the_model_asked_for(pictures: Path):
    made = task(pictures)
    assert tuple(made.train[0].shape) == (TRAIN, 1, SIZE, SIZE)
    assert tuple(made.test[0].shape) == (TEST, 1, SIZE, SIZE)
    assert made.train[0].dtype == torch.uint8
    assert (made.classes, made.samples_per_step, made.objective.name) == (3, 10, "cross_entropy")
    model = made.model()
    assert isinstance(model, ConvNet)
    # Four convolutions of width 2, 4, 8, 16 on one channel; nothing else is trained in the scale-invariant form.
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert trained == 9 * (1 * 2 + 2 * 4 + 4 * 8 + 8 * 16)
    assert "SI ConvNet of width 2" in made.name


def test_images_are_normalised_by_the_training_images_taken(pictures: Path):
    for options in ({}, {"images": 12}, {"classes": [0, 2]}):
        made = task(pictures, **options)
        assert torch.allclose(made.inputs(made.test[0]).double(), normalised(made), atol=1e-5)
    assert not torch.allclose(
        task(pictures, classes=[0, 2]).inputs(made.test[0][:1]), task(pictures).inputs(made.test[0][:1])
    )


def test_each_option_reaches_the_task(pictures: Path):
    resnet = task(pictures, **RESNET).model()
    assert isinstance(resnet, ResNet18)
    ordinary = task(pictures, scale_invariant=False, rule="sgd")
    assert all(value.requires_grad for value in ordinary.model().parameters())
    assert "SI" not in ordinary.name
    few = task(pictures, images=12, test_images=9)
    assert torch.bincount(few.train[1]).tolist() == [4, 4, 4]
    assert torch.bincount(few.test[1]).tolist() == [3, 3, 3]
    two = task(pictures, classes=["0", 2])
    assert (two.classes, len(two.test[0])) == (2, 20)
    wrong = task(pictures, corruption=0.2)
    assert int((wrong.train[1] != task(pictures).train[1]).sum()) == 0.2 * TRAIN
    assert task(pictures, batch_size="full").steps_per_epoch == 1


def test_each_option_of_the_vit_reaches_the_model(pictures: Path):
    options = {**VIT, "rule": None}
    made = task(pictures, **options, dropout=0.25, scale_invariant=False)
    model = made.model()
    assert isinstance(model, ViT)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert shapes["positions"] == (1 + (SIZE // 2) ** 2, 6)
    assert shapes["blocks.0.mlp.1.weight"] == (5, 6)
    assert shapes["head.weight"] == (3, 6)
    assert not any(name.startswith("blocks.1") for name in shapes)
    # Two heads of dimension 3.
    temperature = model.get_parameter("blocks.0.attention.1.log_temperature").detach().exp()
    assert float(temperature) == pytest.approx(3**-0.5)
    assert {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)} == {0.25}
    assert made.name.endswith("ViT of width 6")
    assert made.update.name == "adam"
    assert all(value.requires_grad for value in model.parameters())


def test_what_is_left_out_is_the_models_own(pictures: Path):
    # One at a time: a ViT of the usual width and depth takes many seconds to prepare.
    wide = task(pictures, model="vit", width=None, depth=1, rule=None).model()
    deep = task(pictures, **VIT | {"depth": None}).model()
    assert isinstance(wide, ViT)
    assert isinstance(deep, ViT)
    assert (tuple(wide.positions.shape), len(deep.blocks)) == ((1 + 2 * 2, 512), 6)
    convnet = task(pictures, width=None, rule=None)
    assert convnet.name.endswith("SI ConvNet of width 32")
    # The paper's sphere: a norm of 12 for the ConvNet.
    assert convnet.update.radius == 12
    assert task(pictures, scale_invariant=False, rule=None).update.name == "sgd"


def test_making_a_task_leaves_pytorchs_generator_as_it_was(pictures: Path):
    before = torch.get_rng_state()
    task(pictures, **VIT)
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentations_come_in_the_order_asked_for(pictures: Path):
    assert task(pictures).augment is None
    made = task(pictures, augment=["randaugment", "crop_and_flip"]).augment
    assert made is not None
    assert made.name.index("operations=efficientnet") < made.name.index("crop_and_flip")
    other = task(pictures, augment=["randaugment_torchvision"]).augment
    assert other is not None
    assert "operations=torchvision" in other.name


@pytest.mark.parametrize("kept", [True, False])
def test_training_on_filtered_images_leaves_the_other_bands_empty(kept: bool, pictures: Path):
    made = task(pictures, **{"keep_bands" if kept else "remove_bands": [1, 3]})
    spectrum = torch.fft.fft2(made.inputs(made.test[0]).double()).abs()
    whole = torch.fft.fft2(normalised(made)).abs()
    cycles = (torch.fft.fftfreq(SIZE) * SIZE).abs()
    inside = (cycles[:, None] + cycles >= 1) & (cycles[:, None] + cycles <= 3)
    left = inside if kept else ~inside
    assert torch.allclose(spectrum[..., left], whole[..., left], atol=1e-3)
    assert float(spectrum[..., ~left].max()) < 1e-3


WRONG: list[tuple[dict[str, Any], type[LRAtlasError], str]] = [
    ({"model": "vgg"}, SpecError, "no model 'vgg'; choose one of convnet, resnet18, vit"),
    ({"augment": ["cutout"]}, SpecError, "no augmentation 'cutout'; choose from crop_and_flip, randaugment"),
    ({"width": 0}, SpecError, "width is 0; it must be a whole number from 1 to 4096"),
    ({"width": 5000}, SpecError, "width is 5000"),
    ({"patch": 2}, SpecError, "the model convnet has no option 'patch'; its options are scale_invariant, width."),
    ({"model": "resnet18", "dropout": 0.0}, SpecError, "the model resnet18 has no option 'dropout'"),
    ({**VIT, "scale_invariant": True}, SpecError, "the model vit has no scale-invariant form"),
    ({**VIT, "rule": "sphere_sgd"}, TaskError, "do not change when the trained weights are scaled"),
    ({**VIT, "patch": 3}, SpecError, "patch is 3, which does not divide images of 8x8 pixels; allowed are 1, 2, 4, 8."),
    ({**VIT, "heads": 4}, SpecError, "width is 6 and heads is 4; width must be a multiple of heads"),
    ({**VIT, "depth": 0}, SpecError, "depth is 0; it must be a whole number from 1 to 4096"),
    ({**VIT, "mlp": 5000}, SpecError, "mlp is 5000; it must be"),
    ({**VIT, "dropout": 1.0}, SpecError, "dropout is 1; it must be at least 0 and below 1"),
    ({"keep_bands": [1, 2], "remove_bands": [3, 4]}, SpecError, "either keep_bands or remove_bands, as"),
    ({"keep_bands": [1]}, SpecError, "either keep_bands or remove_bands, as"),
    ({"keep_bands": [3, 1]}, SpecError, "not from 3 to 1"),
    ({"remove_bands": [-1, 1]}, SpecError, "not from -1 to 1"),
    ({"keep_bands": [5, 9]}, LRAtlasError, "have the bands 0 to 8, not 5 to 9"),
    ({"images": 51}, DataError, "51 images of the train set were requested, but these classes have 50"),
    ({"test_images": 0}, DataError, "0 images of the test set"),
    ({"classes": [3]}, DataError, "has no class 3; choose from 0 to 2"),
    ({"classes": [1]}, LRAtlasError, "at least two classes"),
    ({"corruption": 1.5}, DataError, "corruption is 1.5; it must be a share from 0 to 1"),
    ({"pixels": 9}, DataError, "pixels is 9, but the images are 8 x 8; choose from 1 to 8"),
    ({"pixels": 0}, DataError, "pixels is 0"),
    ({"batch_size": 51}, TaskError, 'it must be "full" or a whole number from 1 to 50'),
    ({"scale_invariant": False}, TaskError, "do not change when the trained weights are scaled"),
    ({"data": "imagenet"}, DataError, "no data set or path 'imagenet'; choose one of cifar10"),
]


@pytest.mark.parametrize(("options", "kind", "words"), WRONG)
def test_what_cannot_be_made_is_said_in_one_sentence(
    options: dict[str, Any], kind: type[LRAtlasError], words: str, pictures: Path
):
    with pytest.raises(kind) as caught:
        task(pictures, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_option_of_the_vit_of_the_wrong_kind_is_refused_in_a_spec(pictures: Path):
    options: dict[str, object] = {"data": str(pictures), "model": "vit", "patch": 2.5}
    with pytest.raises(SpecError, match=r"`patch` is 2\.5; it should be a valid integer"):
        tasks_from(TaskSpec(preset="images", options=options)).of(0)


@pytest.mark.parametrize(("model", "size", "least"), [("convnet", 3, "4x4"), ("resnet18", 4, "5x5")])
def test_images_too_small_for_the_model_are_refused(model: str, size: int, least: str, tmp_path: Path):
    images, labels = np.zeros((12, size, size), np.uint8), np.arange(12) % 3
    images += labels[:, None, None].astype(np.uint8)
    np.savez(tmp_path / "small.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    with pytest.raises(TaskError, match=f"needs images of at least {least} pixels, not {size}x{size}"):
        task(tmp_path / "small.npz", model=model)


def test_missing_data_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LRATLAS_DATA", str(tmp_path))
    with pytest.raises(DataError) as caught:
        task(Path("cifar100"))
    words = str(caught.value)
    archive = sources.CATALOGUE["cifar100"].downloads[0].path
    for part in (str(tmp_path), "`lratlas data fetch cifar100`", archive, "--data-root or LRATLAS_DATA"):
        assert part in words


def test_a_channel_without_contrast_is_only_shifted(tmp_path: Path):
    images, labels = np.full((12, 8, 8, 3), 51, np.uint8), np.arange(12) % 3
    images[..., 1:] = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 2))
    np.savez(tmp_path / "flat.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    made = task(tmp_path / "flat.npz")
    shown = made.inputs(made.train[0])
    assert torch.allclose(shown[:, 0], torch.zeros(()), atol=1e-6)
    assert torch.allclose(shown[:, 1:].std((0, 2, 3), correction=0), torch.ones(2), atol=1e-5)


def test_a_task_travels_to_another_process(pictures: Path):
    """Sent there it has the same fingerprint, which hashes data, weights, rule, normalisation and augmentation."""
    made = task(pictures, augment=["crop_and_flip", "randaugment"], keep_bands=[0, 6])
    code = (
        "import base64, cloudpickle, sys; from lratlas.training.fingerprint import fingerprint;"
        "print(fingerprint(cloudpickle.loads(base64.b64decode(sys.stdin.read()))))"
    )
    text = base64.b64encode(cloudpickle.dumps(made)).decode()
    ran = subprocess.run([sys.executable, "-c", code], input=text, capture_output=True, encoding="utf-8", check=True)
    assert ran.stdout.strip() == fingerprint(made)


def test_a_fingerprint_follows_every_option(pictures: Path):
    changes: list[dict[str, Any]] = [
        {},
        RESNET,
        VIT,
        {**VIT, "patch": 4},
        {**VIT, "depth": 2},
        {**VIT, "heads": 3},
        {**VIT, "mlp": 4},
        {**VIT, "dropout": 0.5},
        {"width": 3},
        {"images": 40},
        {"test_images": 20},
        {"classes": [0, 1]},
        {"corruption": 0.1},
        {**VIT, "pixels": 6},
        {"keep_bands": [0, 4]},
        {"remove_bands": [0, 4]},
        {"augment": ["crop_and_flip"]},
        {"batch_size": 5},
        {"rule": "sphere_rsgd"},
    ]
    made = [fingerprint(task(pictures, **change)) for change in changes]
    assert len(set(made)) == len(changes)
    assert fingerprint(task(pictures)) == made[0]
