"""The update rules of a spec, each with its settings."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_serializer, model_validator

from lratlas.config.values import OWN, Betas, Function, Section
from lratlas.text import lr_fault


class RuleSpec(Section):
    """An update rule and its settings."""

    @property
    def settings(self) -> dict[str, object]:
        """The settings as keyword arguments of the rule's function in `lratlas.training.rules`."""
        return {name: value for name, value in self._without_none().items() if name != "name"}

    @model_serializer
    def _without_none(self) -> dict[str, object]:
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in values.items() if value is not None}


def _decay(default: float, kind: str) -> Any:
    return Field(default=default, ge=0, allow_inf_nan=False, description=f"{kind} weight decay")


class SGD(RuleSpec):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = Field(description="the update rule")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="momentum")
    nesterov: bool = Field(default=False, description="Nesterov momentum")
    weight_decay: float = _decay(0.0, "L2")

    @model_validator(mode="after")
    def _has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("has nesterov = true without momentum, but Nesterov needs a momentum above 0")
        return self


class Adam(RuleSpec):
    """Adam with L2 weight decay."""

    name: Literal["adam"] = Field(description="the update rule")
    betas: Betas = Field(default=(0.9, 0.999), description="decay rates of the two moment estimates")
    eps: float = Field(default=1e-8, gt=0, allow_inf_nan=False, description="small number added to the denominator")
    weight_decay: float = _decay(0.0, "L2")


class AdamW(Adam):
    """Adam with decoupled weight decay."""

    name: Literal["adamw"] = Field(description="the update rule")  # pyright: ignore[reportIncompatibleVariableOverride] - the tag of the union
    weight_decay: float = _decay(0.01, "decoupled")


class SphereSGD(RuleSpec):
    """SGD with a projection onto the sphere after each step; the task is scale-invariant."""

    name: Literal["sphere_sgd"] = Field(description="the update rule")
    radius: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="norm of the trained vector")
    other_lr: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="LR of weights that are not scale-invariant; 0 freezes these weights",
    )

    @field_validator("other_lr")
    @classmethod
    def _lr_or_zero(cls, lr: float | None) -> float | None:
        if lr and (allowed := lr_fault(lr)):
            raise ValueError(f"is {lr!r}, but must be 0 or {allowed}")
        return lr


class SphereRSGD(SphereSGD):
    """The geodesic step on the sphere; the task is scale-invariant."""

    name: Literal["sphere_rsgd"] = Field(description="the update rule")  # pyright: ignore[reportIncompatibleVariableOverride] - the tag of the union


class OwnOptimizer(RuleSpec):
    """Your function of (parameters, lr) that makes a `torch.optim.Optimizer`."""

    name: Function = Field(description='"module:function" of (parameters, lr)')


RULES: Mapping[str, type[RuleSpec]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "sphere_sgd": SphereSGD,
    "sphere_rsgd": SphereRSGD,
    OWN: OwnOptimizer,
}


def _tag(value: Any) -> str | None:
    name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)
    return OWN if isinstance(name, str) and ":" in name else name


AnyRule = Annotated[
    Annotated[SGD, Tag("sgd")]
    | Annotated[Adam, Tag("adam")]
    | Annotated[AdamW, Tag("adamw")]
    | Annotated[SphereSGD, Tag("sphere_sgd")]
    | Annotated[SphereRSGD, Tag("sphere_rsgd")]
    | Annotated[OwnOptimizer, Tag(OWN)],
    Discriminator(_tag),
]
"""One of the rules, selected by its name."""
