"""Tasks on images: data, model, augmentation and normalisation from the options of a spec."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lratlas.data.augment import Augmentation, crop_and_flip, then
from lratlas.data.bands import FilterBands
from lratlas.data.images import ImageData, Normalise, statistics
from lratlas.data.randaugment import randaugment
from lratlas.data.readers import read_images
from lratlas.data.subsets import subset
from lratlas.errors import SpecError, TaskError
from lratlas.models.convnet import ConvNet
from lratlas.models.resnet import ResNet18
from lratlas.study.presets import RADIUS
from lratlas.task import Task

MODELS: Mapping[str, Callable[..., nn.Module]] = {"convnet": ConvNet, "resnet18": ResNet18}
AUGMENTATIONS: Mapping[str, Callable[[], Augmentation]] = {"crop_and_flip": crop_and_flip, "randaugment": randaugment}


def image_task(
    _seed: int,
    *,
    data: str,
    model: str = "convnet",
    width: int = 32,
    scale_invariant: bool = True,
    images: int | None = None,
    test_images: int | None = None,
    classes: Sequence[int | str] | None = None,
    corruption: float = 0.0,
    keep_bands: Sequence[int] | None = None,
    remove_bands: Sequence[int] | None = None,
    augment: Sequence[str] = (),
    batch_size: int | Literal["full"] = 128,
    rule: Any = None,
    loss: Any = None,
) -> Task:
    """A convolutional net on a data set of images, normalised by the mean and deviation of its training images.

    Args:
        data: Name of a data set (``lratlas data list``), or the path of an image folder, zip file or arrays.
        model: ``convnet`` or ``resnet18``.
        width: Channels of the model's first convolution.
        scale_invariant: The scale-invariant form of the model, or the ordinary one.
        images: Size of a stratified subset of the training images; all of them if None.
        test_images: The same for the test images.
        classes: Only these classes, by label or name.
        corruption: Share of the training labels replaced by another class.
        keep_bands: Train and test on these Fourier bands alone, [low, high].
        remove_bands: Train and test on all but these.
        augment: What is done to the training images: any of ``crop_and_flip`` and ``randaugment``, in order.
        batch_size: Samples per step.
        rule: Update rule; unless given, SGD on the paper's sphere for the scale-invariant form and plain SGD else.
        loss: Loss, cross-entropy unless given.

    Raises:
        SpecError: An option is not allowed.
        DataError: The data cannot be read.
        TaskError: Model and data do not fit together.
    """
    if model not in MODELS:
        raise SpecError(f"task.options: there is no model {model!r}; choose one of {', '.join(MODELS)}.")
    unknown = [name for name in augment if name not in AUGMENTATIONS]
    if unknown:
        raise SpecError(
            f"task.options: there is no augmentation {unknown[0]!r}; choose from {', '.join(AUGMENTATIONS)}."
        )
    if not 1 <= width <= _WIDEST:
        raise SpecError(f"task.options: width is {width}; it must be a whole number from 1 to {_WIDEST}.")
    read = subset(read_images(data), images=images, test_images=test_images, classes=classes, corruption=corruption)
    parts = [AUGMENTATIONS[name]() for name in augment]
    return Task(
        name=f"{read.name}, {'SI ' if scale_invariant else ''}{MODELS[model].__name__} of width {width}",
        model=_Maker(
            model=model,
            settings={
                "channels": read.train[0].shape[1],
                "classes": len(read.classes),
                "width": width,
                "scale_invariant": scale_invariant,
            },
        ),
        train=read.train,
        test=read.test,
        loss=loss or "cross_entropy",
        batch_size=batch_size,
        rule=rule or ({"name": "sphere_sgd", "radius": RADIUS[model]} if scale_invariant else "sgd"),
        transform=_transform(read, keep_bands, remove_bands),
        augment=then(*parts) if parts else None,
    )


_WIDEST = 4096


@dataclass(frozen=True, kw_only=True)
class _Maker:
    """Makes the model; a class, so that it travels to other processes."""

    model: str
    settings: Mapping[str, Any]

    def __call__(self) -> nn.Module:
        return MODELS[self.model](**self.settings)


@dataclass(frozen=True, kw_only=True)
class _Filtered:
    """Normalisation, then a filter."""

    normalise: Normalise
    keep: FilterBands

    def __call__(self, images: Tensor) -> Tensor:
        return self.keep(self.normalise(images))


def _transform(data: ImageData, keep: Sequence[int] | None, remove: Sequence[int] | None) -> Callable[[Tensor], Tensor]:
    mean, deviation = statistics(data.train[0])
    # A channel without contrast is only shifted.
    deviation = torch.where(deviation > 0, deviation, 1.0)
    normalise = Normalise(mean=tuple(mean.tolist()), std=tuple(deviation.tolist()))
    if keep is None and remove is None:
        return normalise
    bands = remove if keep is None else keep
    if (keep is not None and remove is not None) or bands is None or len(bands) != 2:
        raise SpecError("task.options: give either keep_bands or remove_bands, as [low, high].")
    try:
        return _Filtered(normalise=normalise, keep=FilterBands(low=bands[0], high=bands[1], kept=keep is not None))
    except TaskError as error:
        raise SpecError(f"task.options: {error}") from error
