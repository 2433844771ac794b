"""Commands and groups with help texts without Python types."""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class _WithoutTypes:
    """Help that names the values of options, such as N or FILE, without Python types."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # pyright: ignore[reportAttributeAccessIssue] - of the other base
        for each in params:
            if each.param_type_name == "argument" or each.is_flag:
                each.display_type_rich = _no_type
        return params


def _no_type(ctx: typer.Context) -> None:  # noqa: ARG001 - typer's signature
    return None


class Command(_WithoutTypes, TyperCommand):
    """A command."""


class Group(_WithoutTypes, TyperGroup):
    """A group of commands."""
