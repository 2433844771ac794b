"""Pictures, which no benchmark needs."""

from typing import Any


def save_image(*_: Any, **__: Any) -> None:
    """Nothing."""


def make_grid(tensor: Any, *_: Any, **__: Any) -> Any:
    """The images as they are."""
    return tensor
