"""Studies that come with the package: the paper's synthetic ticks, and real digits."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from lratlas.errors import SpecError
from lratlas.study.sections import MOST_REPEATS
from lratlas.study.spec import AverageSpec, FinetuneSpec, PretrainSpec, RuleSpec, Spec, TaskSpec, lr_grid

PRESETS: Mapping[str, str] = MappingProxyType(
    {
        "ticks": "synthetic ticks, SI MLP: the paper's grid and steps, 5 repetitions (the paper has 50)",
        "digits": "handwritten digits of scikit-learn, SI MLP: 13 PLRs, 3 FLRs, 3 repetitions",
    }
)


def preset(name: str, *, repeats: int | None = None) -> Spec:
    """The spec of a study that comes with the package.

    Args:
        name: One of ``PRESETS``.
        repeats: Repetitions, if not the preset's own number.

    Returns:
        The spec.

    Raises:
        SpecError: There is no such preset, or ``repeats`` is below 1 or above 10,000.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=2)
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise SpecError(f"There is no preset {name!r}{hint}; allowed are {', '.join(PRESETS)}.")
    if repeats is not None and (isinstance(repeats, bool) or not 1 <= repeats <= MOST_REPEATS):
        raise SpecError(
            f"The preset {name} cannot have {repeats} repeats; repeats must be at least 1 and at most {MOST_REPEATS:,}."
        )
    spec = _ticks() if name == "ticks" else _digits()
    if repeats is None:
        return spec
    return spec.model_copy(update={"pretrain": spec.pretrain.model_copy(update={"repeats": repeats})})


def demo_presets() -> dict[str, Spec]:
    """The studies of the demonstration: full step counts, few repetitions and FLRs."""
    ticks = preset("ticks", repeats=3)
    flrs = (10**-4.5, 10**-3.0, 10**-2.125)
    few = FinetuneSpec(lrs=flrs, steps=20_000)
    return {"ticks": ticks.model_copy(update={"finetune": few}), "digits": preset("digits", repeats=1)}


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
