"""Studies that come with the package: the paper's set-ups, and real digits."""

import difflib
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from lratlas.errors import SpecError
from lratlas.study.grid import lr_grid
from lratlas.study.sections import MOST_REPEATS
from lratlas.study.spec import AverageSpec, FinetuneSpec, PretrainSpec, RuleSpec, Spec, TaskSpec, spec_from

PRESETS: Mapping[str, str] = MappingProxyType(
    {
        "ticks": "synthetic ticks, SI MLP: the paper's grid and steps, 5 repetitions (the paper has 50)",
        "digits": "handwritten digits of scikit-learn, SI MLP: 13 PLRs, 3 FLRs, 3 repetitions",
        "fashion-convnet": "8,192 images of Fashion-MNIST, SI ConvNet of width 8: sized for two cores",
        "cifar10-convnet": "CIFAR-10, SI ConvNet of width 32, the paper's grid",
        "cifar10-resnet": "CIFAR-10, SI ResNet-18 of width 32, the paper's grid",
        "cifar100-convnet": "CIFAR-100, SI ConvNet of width 128, the paper's grid",
        "cifar100-resnet": "CIFAR-100, SI ResNet-18 of width 32, the paper's grid",
        "tinyimagenet-resnet": "Tiny ImageNet (64 x 64, 200 classes), SI ResNet-18 of width 32, the paper's grid",
    }
)
# What the number of images is scaled from where a preset takes all of them.
_TRAINING_IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "tiny-imagenet": 100_000}
RADIUS: Mapping[str, float] = {"convnet": 12.0, "resnet18": 28.0}  # of the sphere: paper, controlled setting


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
) -> Spec:
    """The spec of a study that comes with the package.

    Args:
        name: One of ``PRESETS``.
        repeats: Repetitions, if not the preset's own number.
        scale: Shrinks the width, the number of training images and all epochs of a study of images to this share.
        width: The model's width (studies of images).
        images: Training images (studies of images).
        test_images: Test images (studies of images).
        epochs: Epochs of pre-training (studies of images).
        finetune_epochs: Epochs of fine-tuning (studies of images).
        lrs: The pre-training LRs.

    Returns:
        The spec.

    Raises:
        SpecError: There is no such preset, or an option is out of range or not one of this preset.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=2)
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise SpecError(f"There is no preset {name!r}{hint}; allowed are {', '.join(PRESETS)}.")
    if repeats is not None and (isinstance(repeats, bool) or not 1 <= repeats <= MOST_REPEATS):
        raise SpecError(
            f"The preset {name} cannot have {repeats} repeats; repeats must be at least 1 and at most {MOST_REPEATS:,}."
        )
    if scale is not None and not 0 < scale <= 1:
        raise SpecError(f"scale is {scale:g}; it must be above 0 and at most 1.")
    spec = _made(name)
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
        spec = _resized(spec, scale or 1.0, **sizes)
    elif given:
        raise SpecError(f"The preset {name} has no {given[0]}; only studies of images can be resized.")
    changes = {"repeats": repeats, "lrs": None if lrs is None else [*lrs]}
    return _with(spec, pretrain={key: value for key, value in changes.items() if value is not None})


def demo_presets() -> dict[str, Spec]:
    """The studies of the demonstration: full step counts, few repetitions and FLRs."""
    ticks = preset("ticks", repeats=3)
    flrs = (10**-4.5, 10**-3.0, 10**-2.125)
    few = FinetuneSpec(lrs=flrs, steps=20_000)
    return {"ticks": ticks.model_copy(update={"finetune": few}), "digits": preset("digits", repeats=1)}


def _made(name: str) -> Spec:
    makers = {
        "ticks": _ticks,
        "digits": _digits,
        "fashion-convnet": _fashion,
        "cifar10-convnet": lambda: _paper(name, "cifar10", "convnet", 32, _grid(_DECADE_OF_3, 0.5), (1e-5, 5e-4)),
        "cifar10-resnet": lambda: _paper(name, "cifar10", "resnet18", 32, _grid(_DECADE_OF_6, 0.1), (1e-5, 3e-4)),
        "cifar100-convnet": lambda: _paper(name, "cifar100", "convnet", 128, _grid(_DECADE_OF_3, 0.5), (1e-5, 2e-4)),
        "cifar100-resnet": lambda: _paper(name, "cifar100", "resnet18", 32, _grid(_DECADE_OF_6, 0.1), (2e-5, 1e-4)),
        "tinyimagenet-resnet": lambda: _paper(
            name, "tiny-imagenet", "resnet18", 32, _grid(_DECADE_OF_6, 0.1), (2e-5, 1e-4)
        ),
    }
    return makers[name]()


def _ticks() -> Spec:
    """Paper, synthetic example (Fig. 5): steps of 10^0.25, of 10^0.125 about the boundaries."""
    exponents = (
        *(-4.5 + index / 4 for index in range(9)),
        *(-2.25 + index / 8 for index in range(9)),
        *(-1.0 + index / 4 for index in range(5)),
    )
    lrs = tuple(10**exponent for exponent in exponents)
    return Spec(
        name="ticks",
        task=TaskSpec(preset="ticks", batch_size=16, rule=RuleSpec(name="sphere_sgd")),
        pretrain=PretrainSpec(lrs=lrs, steps=40_000, repeats=5),
        finetune=FinetuneSpec(lrs=lrs[:11], steps=20_000),
        average=AverageSpec(counts=(2, 5, 10, 20, 50), every=100),
    )


def _digits() -> Spec:
    return Spec(
        name="digits",
        task=TaskSpec(preset="digits", batch_size=32, rule=RuleSpec(name="sphere_sgd")),
        pretrain=PretrainSpec(lrs=lr_grid(1e-4, 1.0, per_decade=3), steps=3_000, repeats=3),
        finetune=FinetuneSpec(lrs=(1e-4, 1e-3, 1e-2), steps=1_500),
        average=AverageSpec(counts=(2, 5, 10, 20)),
    )


_DECADE_OF_3 = (1.0, 2.0, 5.0)
_DECADE_OF_6 = (1.0, 1.4, 2.0, 3.0, 5.0, 7.0)


def _grid(decade: Sequence[float], high: float) -> list[float]:
    """The paper's PLRs: from 1e-5 to ``high`` in the same steps in every decade."""
    values = [float(f"{step}e{exponent}") for exponent in range(-5, 0) for step in decade]
    return sorted({lr for lr in (*values, high) if lr <= high})


def _fashion() -> Spec:
    exponents = (-4.0, -3.75, -3.5, -3.25, *(-3.0 + index / 8 for index in range(11)), -1.5, -1.25)
    return Spec(
        name="fashion-convnet",
        task=TaskSpec(
            preset="images",
            options={
                "data": "fashion-mnist",
                "model": "convnet",
                "width": 8,
                "scale_invariant": True,
                "images": 8192,
                "test_images": 4096,
            },
            batch_size=128,
            rule=RuleSpec(name="sphere_sgd", radius=RADIUS["convnet"]),
        ),
        pretrain=PretrainSpec(lrs=tuple(10**exponent for exponent in exponents), epochs=50),
        finetune=FinetuneSpec(lrs=(1e-4, 5e-4, 2e-3), epochs=12),
        average=AverageSpec(counts=(2, 5, 10, 20)),
        # A quarter of the paper's epochs ends at 1 to 2 per cent of the chance loss where more would go on falling.
        regimes={"small_loss": 0.02},
    )


def _paper(name: str, data: str, model: str, width: int, lrs: Sequence[float], flrs: tuple[float, float]) -> Spec:
    """A row of the paper's set-ups: 200 epochs, 200 of fine-tuning, SWA over up to 100 more epochs at the PLR."""
    return Spec(
        name=name,
        task=TaskSpec(
            preset="images",
            options={"data": data, "model": model, "width": width, "scale_invariant": True},
            batch_size=128,
            rule=RuleSpec(name="sphere_sgd", radius=RADIUS[model]),
        ),
        pretrain=PretrainSpec(lrs=tuple(lrs), epochs=200),
        finetune=FinetuneSpec(lrs=flrs, epochs=200),
        average=AverageSpec(counts=(2, 5, 10, 50, 100), extend=True),
    )


def _resized(
    spec: Spec,
    scale: float,
    *,
    width: int | None,
    images: int | None,
    test_images: int | None,
    epochs: int | None,
    finetune_epochs: int | None,
) -> Spec:
    """The study with another width and other numbers of images and epochs; averages reach as far relative to these."""
    options = dict(spec.task.options)
    pretrain, finetune, average = spec.pretrain, spec.finetune, spec.average
    assert finetune is not None
    assert average is not None
    options["width"] = width or max(1, round(scale * int(str(options["width"]))))
    whole = options.get("images") or _TRAINING_IMAGES[str(options["data"])]
    if images or scale < 1:
        options["images"] = images or round(scale * int(str(whole)))
    if test_images:
        options["test_images"] = test_images
    length = epochs or max(1, round(scale * (pretrain.epochs or 1)))
    tuned = finetune_epochs or max(1, round(scale * (finetune.epochs or 1)))
    most = math.ceil(max(average.counts) * length / (pretrain.epochs or 1))
    counts = sorted({count for count in average.counts if count <= most} | {most})
    return _with(
        spec,
        task={"options": options},
        pretrain={"epochs": length},
        finetune={"epochs": tuned},
        average={"counts": counts},
    )


def _with(spec: Spec, **sections: Mapping[str, object]) -> Spec:
    """The spec with some fields of some sections changed, checked again."""
    values = spec.model_dump(exclude_none=True)
    return spec_from(values | {name: {**values[name], **changes} for name, changes in sections.items()})
