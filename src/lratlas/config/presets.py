"""The built-in studies: the paper's set-ups, and real digits."""

import math
from collections.abc import Mapping, Sequence

from lratlas.config.preset_names import FOLDER, PRESETS
from lratlas.config.sections import MOST_REPEATS, FinetuneSpec, Spec
from lratlas.config.spec import read_spec, spec_from
from lratlas.errors import SpecError, meant

# The numbers of images to scale if a preset uses all of them.
_TRAINING_IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "tiny-imagenet": 100_000}


def preset(
    name: str,
    *,
    repeats: int | None = None,
    scale: float | None = None,
    width: int | None = None,
    images: int | None = None,
    test_images: int | None = None,
    epochs: int | None = None,
    finetune_epochs: int | None = None,
    lrs: Sequence[float] | None = None,
    measure: Sequence[str] = (),
) -> Spec:
    """The spec of a built-in study.

    Args:
        name: One of ``PRESETS``.
        repeats: Repetitions; by default the preset's number.
        scale: Shrinks the width, the number of training images and all epochs of a study of images to this share.
        width: The model's width (studies of images).
        images: Training images (studies of images).
        test_images: Test images (studies of images).
        epochs: Epochs of pre-training (studies of images).
        finetune_epochs: Epochs of fine-tuning (studies of images).
        lrs: The pre-training LRs.
        measure: Additional measurements: switches of the spec's section ``measure``, and custom measurements, each
            ``module:name``.

    Returns:
        The spec.

    Raises:
        SpecError: The preset does not exist, or an option is out of range or not available for this preset.
    """
    if name not in PRESETS:
        raise SpecError(f"There is no preset {name!r}{meant(name, PRESETS)}; allowed are {', '.join(PRESETS)}.")
    if repeats is not None and (isinstance(repeats, bool) or not 1 <= repeats <= MOST_REPEATS):
        raise SpecError(f"The preset {name} cannot have {repeats} repeats; repeats must be from 1 to {MOST_REPEATS:,}.")
    if scale is not None and not 0 < scale <= 1:
        raise SpecError(f"scale is {scale:g}; it must be above 0 and at most 1.")
    spec = read_spec(FOLDER / f"{name}.toml")
    sizes: dict[str, int | None] = {
        "width": width,
        "images": images,
        "test_images": test_images,
        "epochs": epochs,
        "finetune_epochs": finetune_epochs,
    }
    small = [f"{option} is {value}" for option, value in sizes.items() if value is not None and value < 1]
    if small:
        raise SpecError(f"{small[0]}; it must be at least 1.")
    given = [option for option, value in {"scale": scale, **sizes}.items() if value is not None]
    if spec.task.preset == "images":
        spec = _resize(spec, scale or 1.0, sizes)
    elif given:
        raise SpecError(f"The preset {name} has no {given[0]}; only studies of images can change size.")
    changes = {"repeats": repeats, "lrs": None if lrs is None else [*lrs]}
    return _with(
        spec,
        pretrain={key: value for key, value in changes.items() if value is not None},
        measure=_measure_options(spec, measure),
    )


def _measure_options(spec: Spec, names: Sequence[str]) -> dict[str, object]:
    extra = [name for name in names if ":" in name]
    switches: dict[str, object] = dict.fromkeys((name for name in names if ":" not in name), True)
    return switches | ({"extra": [*spec.measure.extra, *extra]} if extra else {})


def demo_presets() -> dict[str, Spec]:
    """The studies of the demonstration: full step counts, three repetitions, few FLRs."""
    ticks = preset("ticks", repeats=3)
    flrs = (10**-4.5, 10**-3.0, 10**-2.125)
    few = FinetuneSpec(lrs=flrs, steps=20_000)
    return {"ticks": ticks.model_copy(update={"finetune": few}), "digits": preset("digits-label-noise")}


def _resize(spec: Spec, scale: float, sizes: Mapping[str, int | None]) -> Spec:
    """The study with another width and other numbers of images and epochs; averages scale with the epochs."""
    options = dict(spec.task.options)
    pretrain, finetune, average = spec.pretrain, spec.finetune, spec.average
    heads = int(str(options.get("heads", 1)))  # a ViT's width is a multiple of them
    options["width"] = sizes["width"] or heads * max(1, round(scale * int(str(options["width"])) / heads))
    whole = options.get("images") or _TRAINING_IMAGES[str(options["data"])]
    if sizes["images"] or scale < 1:
        options["images"] = sizes["images"] or round(scale * int(str(whole)))
    if sizes["test_images"]:
        options["test_images"] = sizes["test_images"]
    length = sizes["epochs"] or max(1, round(scale * (pretrain.epochs or 1)))
    sections: dict[str, Mapping[str, object]] = {"task": {"options": options}, "pretrain": {"epochs": length}}
    if spec.second:
        sections["second"] = {"epochs": max(1, round((spec.second.epochs or 1) * length / (pretrain.epochs or 1)))}
    if finetune:
        sections["finetune"] = {"epochs": sizes["finetune_epochs"] or max(1, round(scale * (finetune.epochs or 1)))}
    if average:
        most = math.ceil(max(average.counts) * length / (pretrain.epochs or 1))
        sections["average"] = {"counts": sorted({count for count in average.counts if count <= most} | {most})}
    return _with(spec, **sections)


def _with(spec: Spec, **sections: Mapping[str, object]) -> Spec:
    """The spec with some fields of some sections changed, checked again."""
    values = spec.model_dump(exclude_none=True)
    return spec_from(values | {name: {**values[name], **changes} for name, changes in sections.items()})
