"""Tasks on images: data, model, augmentation and normalisation from the options of a spec."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lratlas.data.augment import Augmentation, crop_and_flip, then
from lratlas.data.bands import FilterBands
from lratlas.data.images import ImageData, Normalise, statistics, subset
from lratlas.data.randaugment import randaugment
from lratlas.data.readers import read_images
from lratlas.errors import SpecError, TaskError
from lratlas.models.convnet import ConvNet
from lratlas.models.resnet import ResNet18
from lratlas.models.vit import ViT
from lratlas.task import Task

RADIUS: Mapping[str, float] = {"convnet": 12.0, "resnet18": 28.0}  # radius of the sphere: paper, controlled setting
MODELS: Mapping[str, type[nn.Module]] = {"convnet": ConvNet, "resnet18": ResNet18, "vit": ViT}
AUGMENTATIONS: Mapping[str, Callable[[], Augmentation]] = {
    "crop_and_flip": crop_and_flip,
    "randaugment": randaugment,
    "randaugment_torchvision": partial(randaugment, operations="torchvision"),
}


def image_task(
    _seed: int,
    *,
    data: str,
    model: str = "convnet",
    width: int | None = None,
    scale_invariant: bool | None = None,
    patch: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    mlp: int | None = None,
    dropout: float | None = None,
    images: int | None = None,
    test_images: int | None = None,
    classes: Sequence[int | str] | None = None,
    corruption: float = 0.0,
    pixels: int | None = None,
    keep_bands: Sequence[int] | None = None,
    remove_bands: Sequence[int] | None = None,
    augment: Sequence[str] = (),
    batch_size: int | Literal["full"] = 128,
    rule: Any = None,
    loss: Any = None,
) -> Task:
    """A network on a data set of images, normalised by the mean and deviation of its training images.

    Args:
        data: Name of a data set (``lratlas data list``), or the path of an image folder, zip file or arrays.
        model: ``convnet``, ``resnet18`` or ``vit``.
        width: Channels of the first convolution (32 if None); for the ViT the token dimension (512 if None).
        scale_invariant: The scale-invariant form of the model, or the ordinary one; if None the scale-invariant form
            if the model has one (the ViT does not).
        patch: Side of the ViT's patches in pixels (4 if None).
        depth: Blocks of the ViT (6 if None).
        heads: Attention heads of the ViT (8 if None).
        mlp: Hidden units of the ViT's MLPs (512 if None).
        dropout: Dropout of the ViT (0.1 if None).
        images: Size of a stratified subset of the training images; all of them if None.
        test_images: Size of a stratified subset of the test images; all of them if None.
        classes: Only these classes, by label or name.
        corruption: Share of the training labels replaced by another class.
        pixels: Height and width to which images are reduced; unchanged if None.
        keep_bands: Train and test on only these Fourier bands, [low, high].
        remove_bands: Train and test on all bands except these.
        augment: Augmentations of the training images: any of ``crop_and_flip``, ``randaugment`` and
            ``randaugment_torchvision``, in order.
        batch_size: Samples per step.
        rule: Update rule; by default SGD on the paper's sphere for a scale-invariant form, Adam for the ViT and
            plain SGD otherwise.
        loss: Loss, by default cross-entropy.

    Raises:
        SpecError: An option is not allowed, or the model lacks it.
        DataError: The data cannot be read.
        TaskError: Model and data do not fit together.
    """
    shape = {"width": width, "patch": patch, "depth": depth, "heads": heads, "mlp": mlp, "dropout": dropout}
    settings = _settings(model, shape, scale_invariant=scale_invariant)
    unknown = [name for name in augment if name not in AUGMENTATIONS]
    if unknown:
        raise SpecError(
            f"task.options: there is no augmentation {unknown[0]!r}; choose from {', '.join(AUGMENTATIONS)}."
        )
    read = subset(
        read_images(data),
        images=images,
        test_images=test_images,
        classes=classes,
        corruption=corruption,
        pixels=pixels,
    )
    maker = _maker(model, settings, read)
    parts = [AUGMENTATIONS[name]() for name in augment]
    return Task(
        name=f"{read.name}, {maker.title}",
        model=maker,
        train=read.train,
        test=read.test,
        loss=loss or "cross_entropy",
        batch_size=batch_size,
        rule=rule or _usual_rule(maker),
        transform=_transform(read, keep_bands, remove_bands),
        augment=then(*parts) if parts else None,
    )


_LARGEST = 4096  # largest integer option of a model


@dataclass(frozen=True, kw_only=True)
class _Maker:
    """A factory of the model; a class, so that it can be pickled.

    Attributes:
        model: One of ``MODELS``.
        settings: All keyword arguments of its class.
    """

    model: str
    settings: Mapping[str, Any]

    def __call__(self) -> nn.Module:
        return MODELS[self.model](**self.settings)

    @property
    def scale_invariant(self) -> bool:
        return self.settings.get("scale_invariant", False)

    @property
    def title(self) -> str:
        form = "SI " if self.scale_invariant else ""
        return f"{form}{MODELS[self.model].__name__} of width {self.settings['width']}"


def _settings(model: str, options: Mapping[str, float | None], *, scale_invariant: bool | None) -> Mapping[str, object]:
    """The arguments of the model's class that do not come from the data; None becomes the default."""
    if model not in MODELS:
        raise SpecError(f"task.options: there is no model {model!r}; choose one of {', '.join(MODELS)}.")
    taken = inspect.signature(MODELS[model]).parameters
    given = {name: value for name, value in options.items() if value is not None}
    foreign = [name for name in given if name not in taken]
    if foreign:
        own = ", ".join(name for name in ("scale_invariant", *options) if name in taken)
        raise SpecError(f"task.options: the model {model} has no option {foreign[0]!r}; its options are {own}.")
    for name, value in given.items():
        if name != "dropout" and not 1 <= value <= _LARGEST:
            raise SpecError(f"task.options: {name} is {value}; it must be a whole number from 1 to {_LARGEST}.")
    settings = {name: given.get(name, taken[name].default) for name in options if name in taken}
    if "scale_invariant" in taken:
        return {**settings, "scale_invariant": scale_invariant is not False}
    if scale_invariant:
        raise SpecError(
            f"task.options: the model {model} has no scale-invariant form; set scale_invariant to false or leave"
            " it out."
        )
    return settings


def _maker(model: str, settings: Mapping[str, object], data: ImageData) -> _Maker:
    """The factory of the model for these data, tried once."""
    channels, *size = data.train[0].shape[1:]
    whole = {**settings, "channels": channels, "classes": len(data.classes)}
    if "size" in inspect.signature(MODELS[model]).parameters:
        whole["size"] = tuple(size)
    maker = _Maker(model=model, settings=whole)
    try:
        with torch.random.fork_rng(devices=[]):
            maker()
    except ValueError as error:
        raise SpecError(f"task.options: {error}") from error
    return maker


def _usual_rule(maker: _Maker) -> str | Mapping[str, object]:
    if maker.scale_invariant:
        return {"name": "sphere_sgd", "radius": RADIUS[maker.model]}
    return "adam" if maker.model == "vit" else "sgd"


@dataclass(frozen=True, kw_only=True)
class _Filtered:
    """Normalisation, then a filter."""

    normalise: Normalise
    keep: FilterBands

    def __call__(self, images: Tensor) -> Tensor:
        return self.keep(self.normalise(images))


def _transform(data: ImageData, keep: Sequence[int] | None, remove: Sequence[int] | None) -> Callable[[Tensor], Tensor]:
    mean, deviation = statistics(data.train[0])
    # Only shift a channel without contrast.
    deviation = torch.where(deviation > 0, deviation, 1.0)
    normalise = Normalise(mean=tuple(mean.tolist()), std=tuple(deviation.tolist()))
    if keep is None and remove is None:
        return normalise
    bands = remove if keep is None else keep
    if (keep is not None and remove is not None) or bands is None or len(bands) != 2:
        raise SpecError("task.options: set either keep_bands or remove_bands, as [low, high].")
    try:
        return _Filtered(normalise=normalise, keep=FilterBands(low=bands[0], high=bands[1], kept=keep is not None))
    except TaskError as error:
        raise SpecError(f"task.options: {error}") from error
