"""Stands in for torchvision where that is not installed: what the programs of `benchmarks.programs` use of it."""

from . import datasets, transforms, utils

__all__ = ["datasets", "transforms", "utils"]
