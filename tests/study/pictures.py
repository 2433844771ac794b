"""Tiny images of three classes in a file, and specs of studies of them."""

from pathlib import Path
from typing import Any

import numpy as np

from lratlas.config.sections import Spec
from lratlas.config.spec import spec_from

TRAIN, TEST, SIZE = 50, 30, 8


def write_pictures(path: Path) -> Path:
    """Arrays of noisy grey images, 50 and 30 of them: each class has its own grey level on the left."""
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", TRAIN), ("test", TEST)):
        labels = np.arange(count) % 3
        images = draw.integers(0, 120, (count, SIZE, SIZE))
        images[:, :, : SIZE // 2] += 60 * labels[:, None, None]
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels}
    np.savez(path, **arrays)
    return path


def picture_options(path: Path, **changes: Any) -> dict[str, Any]:
    return {"data": str(path), "model": "convnet", "width": 2, "augment": ["crop_and_flip"]} | changes


def picture_spec(path: Path, *, task: dict[str, Any] | None = None, **changes: Any) -> Spec:
    """A whole study: 2 PLRs for 3 epochs of 4 steps, 2 FLRs for 2, SWA-2, one run at a time, segments of 6 steps."""
    sections: dict[str, Any] = {
        "name": "pictures",
        "task": {
            "preset": "images",
            "options": picture_options(path),
            "batch_size": 12,
            "rule": {"name": "sphere_sgd", "radius": 3.0},
        }
        | (task or {}),
        "pretrain": {"lrs": [1e-3, 1e-1], "epochs": 3},
        "finetune": {"lrs": [1e-4, 1e-3], "epochs": 2},
        "average": {"counts": [2]},
        "trace": {"points": 4},
        "measure": {"interpolation": 3},
        "training": {"device": "cpu", "compile": False, "strategy": "single", "segment_steps": 6},
    }
    values = sections | changes
    return spec_from({name: value for name, value in values.items() if value is not None})
