"""The specs behind the presets: the paper's set-ups, and smaller ones for two cores."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from lratlas.config.grid import lr_grid
from lratlas.config.sections import (
    AverageSpec,
    FinetuneSpec,
    MeasureSpec,
    PretrainSpec,
    RefineSpec,
    RuleSpec,
    SecondSpec,
    Spec,
    TaskSpec,
)

RADIUS: Mapping[str, float] = {"convnet": 12.0, "resnet18": 28.0}  # of the sphere: paper, controlled setting


def _ticks_grid() -> tuple[float, ...]:
    """Paper, synthetic example (Fig. 5): steps of 10^0.25, of 10^0.125 about the boundaries."""
    exponents = (
        *(-4.5 + index / 4 for index in range(9)),
        *(-2.25 + index / 8 for index in range(9)),
        *(-1.0 + index / 4 for index in range(5)),
    )
    return tuple(10**exponent for exponent in exponents)


_TICKS = TaskSpec(preset="ticks", batch_size=16, rule=RuleSpec(name="sphere_sgd"))


def _ticks() -> Spec:
    lrs = _ticks_grid()
    return Spec(
        name="ticks",
        task=_TICKS,
        pretrain=PretrainSpec(lrs=lrs, steps=40_000, repeats=5),
        finetune=FinetuneSpec(lrs=lrs[:11], steps=20_000),
        average=AverageSpec(counts=(2, 5, 10, 20, 50), every=100),
    )


def _ticks_threshold() -> Spec:
    """Epochs to convergence near the threshold (Fig. 11), with time for ten times as many steps as usual."""
    return Spec(
        name="ticks-threshold",
        task=_TICKS,
        pretrain=PretrainSpec(lrs=tuple(10 ** (-3 + index / 10) for index in range(14)), steps=400_000, repeats=5),
        refine=RefineSpec(ratio=1.05),
        measure=MeasureSpec(convergence=True),
    )


def _ticks_minima() -> Spec:
    """Two stages, norms and sharpness (Figs. 12, 13, 26); the second PLRs are the ones just above the threshold."""
    lrs = _ticks_grid()
    return Spec(
        name="ticks-minima",
        task=_TICKS,
        pretrain=PretrainSpec(lrs=lrs, steps=40_000, repeats=5),
        second=SecondSpec(plrs=(10**-1.5, 10**-1.25), lrs=(10**-2.125, 10**-2.0), steps=40_000),
        finetune=FinetuneSpec(lrs=(10**-4.5, 10**-3.5, 10**-3.0, 10**-2.5), steps=20_000),
        average=AverageSpec(counts=(2, 5, 10, 20, 50), every=100),
        measure=MeasureSpec(great_circle=True, norms=True, sharpness=True),
    )


def _digits() -> Spec:
    return Spec(
        name="digits",
        task=TaskSpec(preset="digits", batch_size=32, rule=RuleSpec(name="sphere_sgd")),
        pretrain=PretrainSpec(lrs=lr_grid(1e-4, 1.0, per_decade=3), steps=3_000, repeats=3),
        finetune=FinetuneSpec(lrs=(1e-4, 1e-3, 1e-2), steps=1_500),
        average=AverageSpec(counts=(2, 5, 10, 20)),
    )


def _digits_label_noise() -> Spec:
    options: dict[str, Any] = {"images": 300, "corruption": 0.2}
    return Spec(
        name="digits-label-noise",
        task=TaskSpec(preset="digits", batch_size=32, rule=RuleSpec(name="sphere_sgd"), options=options),
        pretrain=PretrainSpec(lrs=lr_grid(10**-3.5, 10**-0.5, per_decade=4), steps=6_000, repeats=3),
        finetune=FinetuneSpec(lrs=(3e-4, 1e-3, 1e-2), steps=3_000),
        average=AverageSpec(counts=(5, 20, 50), every=20),
    )


_DECADE_OF_3 = (1.0, 2.0, 5.0)
_DECADE_OF_6 = (1.0, 1.4, 2.0, 3.0, 5.0, 7.0)
_NEAR_THRESHOLD = (1e-4, 1.4e-4, 2e-4, 2.5e-4, 3e-4, 3.5e-4, 3.9e-4, 5e-4)
_MOMENTUM = RuleSpec(name="sgd", momentum=0.9, weight_decay=5e-4)
_ADAM = RuleSpec(name="adam", weight_decay=1e-4)
_VIT: dict[str, Any] = {"patch": 4, "depth": 6, "heads": 8, "mlp": 512, "dropout": 0.1}
_SMALL_VIT: dict[str, Any] = {"patch": 4, "depth": 4, "heads": 4, "mlp": 64, "dropout": 0.1}
_CROP = ["crop_and_flip"]
_RANDOM = ["randaugment", "crop_and_flip"]
_PAPER_AVERAGE = AverageSpec(counts=(2, 5, 10, 50, 100), extend=True)
_VIT_AVERAGE = AverageSpec(counts=(2, 5, 10), every_epochs=2)


def _grid(decade: Sequence[float], low: float, high: float) -> tuple[float, ...]:
    """The paper's PLRs: from ``low`` to ``high`` in the same steps in every decade."""
    values = [float(f"{step}e{exponent}") for exponent in range(-5, 1) for step in decade]
    return tuple(sorted({lr for lr in (*values, low, high) if low <= lr <= high}))


def _images(
    data: str, model: str, width: int, *, rule: RuleSpec | None = None, batch_size: int = 128, **options: Any
) -> TaskSpec:
    """The task of a study of images; without a rule the model is scale-invariant, on the paper's sphere."""
    invariant = rule is None
    return TaskSpec(
        preset="images",
        options={"data": data, "model": model, "width": width, "scale_invariant": invariant, **options},
        batch_size=batch_size,
        rule=rule or RuleSpec(name="sphere_sgd", radius=RADIUS[model]),
    )


def _fashion_convnet() -> Spec:
    exponents = (-4.0, -3.75, -3.5, -3.25, *(-3.0 + index / 8 for index in range(11)), -1.5, -1.25)
    return Spec(
        name="fashion-convnet",
        task=_images("fashion-mnist", "convnet", 8, images=8192, test_images=4096),
        pretrain=PretrainSpec(lrs=tuple(10**exponent for exponent in exponents), epochs=50),
        finetune=FinetuneSpec(lrs=(1e-4, 5e-4, 2e-3), epochs=12),
        average=AverageSpec(counts=(2, 5, 10, 20)),
        # A quarter of the paper's epochs ends at 1 to 2 per cent of the chance loss where more would go on falling.
        regimes={"small_loss": 0.02},
    )


def _fashion_small(name: str, task: TaskSpec, lrs: Sequence[float], flrs: Sequence[float]) -> Spec:
    return Spec(
        name=name,
        task=task,
        pretrain=PretrainSpec(lrs=tuple(lrs), epochs=50),
        finetune=FinetuneSpec(lrs=tuple(flrs), epochs=12),
        average=AverageSpec(counts=(2, 5, 10)),
        measure=MeasureSpec(convergence=True, norms=True, interpolation=11),
    )


def _paper(name: str, task: TaskSpec, lrs: Sequence[float], flrs: Sequence[float], *, epochs: int = 200) -> Spec:
    """A row of the paper's set-ups, with as many epochs of fine-tuning.

    Averages are over up to 100 more epochs at the PLR, or, of the ViT, over pre-training's own last checkpoints.
    """
    return Spec(
        name=name,
        task=task,
        pretrain=PretrainSpec(lrs=tuple(lrs), epochs=epochs),
        finetune=FinetuneSpec(lrs=tuple(flrs), epochs=epochs),
        average=_VIT_AVERAGE if task.options["model"] == "vit" else _PAPER_AVERAGE,
    )


def _paper_threshold() -> Spec:
    return Spec(
        name="cifar10-resnet-threshold",
        task=_images("cifar10", "resnet18", 32),
        pretrain=PretrainSpec(lrs=_NEAR_THRESHOLD, epochs=3000),
        measure=MeasureSpec(convergence=True, bands=False),
    )


def _paper_two_stages() -> Spec:
    direct = _paper("cifar10-resnet-two-stages", _images("cifar10", "resnet18", 32), (1e-3, 1e-2), (1e-5, 3e-4))
    return direct.model_copy(update={"second": SecondSpec(plrs=(1e-2,), lrs=(1e-3,), epochs=200)})


def _setups() -> dict[str, Callable[[], Spec]]:
    three, six = _grid(_DECADE_OF_3, 1e-5, 0.5), _grid(_DECADE_OF_6, 1e-5, 0.1)
    practical, adam = _grid(_DECADE_OF_3, 1e-4, 1.0), _grid(_DECADE_OF_3, 1e-5, 1e-2)
    rows: dict[str, tuple[TaskSpec, Sequence[float], Sequence[float], int]] = {
        "cifar10-convnet": (_images("cifar10", "convnet", 32), three, (1e-5, 5e-4), 200),
        "cifar10-resnet": (_images("cifar10", "resnet18", 32), six, (1e-5, 3e-4), 200),
        "cifar100-convnet": (_images("cifar100", "convnet", 128), three, (1e-5, 2e-4), 200),
        "cifar100-resnet": (_images("cifar100", "resnet18", 32), six, (2e-5, 1e-4), 200),
        "tinyimagenet-resnet": (_images("tiny-imagenet", "resnet18", 32), six, (2e-5, 1e-4), 200),
    }
    for data in ("cifar10", "cifar100"):
        resnet = _images(data, "resnet18", 64, rule=_MOMENTUM, augment=_CROP)
        vit = _images(data, "vit", 512, rule=_ADAM, batch_size=512, augment=_RANDOM, **_VIT)
        rows[f"{data}-resnet-practical"] = (resnet, practical, (1e-4, 2e-3), 200)
        rows[f"{data}-vit"] = (vit, adam, (1e-5, 2e-5, 5e-5, 1e-4), 500)
    small: dict[str, Any] = {"images": 2048, "test_images": 2048, "batch_size": 64}
    resnet = _images("fashion-mnist", "resnet18", 8, **small)
    ordinary = _images("fashion-mnist", "resnet18", 8, rule=_MOMENTUM, augment=_CROP, **small)
    vit = _images("fashion-mnist", "vit", 64, rule=_ADAM, augment=_RANDOM, **_SMALL_VIT, **small)
    short = (
        ("fashion-resnet", resnet, lr_grid(1e-4, 1e-1, per_decade=3), (1e-5, 3e-4)),
        ("fashion-resnet-practical", ordinary, lr_grid(1e-3, 1.0, per_decade=2), (1e-4, 2e-3)),
        ("fashion-vit", vit, lr_grid(1e-5, 1e-2, per_decade=2), (1e-5, 1e-4)),
    )
    return {
        "ticks": _ticks,
        "ticks-threshold": _ticks_threshold,
        "ticks-minima": _ticks_minima,
        "digits": _digits,
        "digits-label-noise": _digits_label_noise,
        "fashion-convnet": _fashion_convnet,
        **{name: partial(_fashion_small, name, task, lrs, flrs) for name, task, lrs, flrs in short},
        "cifar10-resnet-threshold": _paper_threshold,
        "cifar10-resnet-two-stages": _paper_two_stages,
        **{
            name: partial(_paper, name, task, lrs, flrs, epochs=epochs)
            for name, (task, lrs, flrs, epochs) in rows.items()
        },
    }


SETUPS: Mapping[str, Callable[[], Spec]] = _setups()
