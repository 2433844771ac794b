"""Two studies that are repeated until they have a million runs, and the plans that LR Atlas makes for them.

- mlp: the preset ``ticks``; runs are trained in stacks, and a job is many of them.
- resnet: the preset ``cifar10-resnet``, ResNet-18 of width 32; each run is a job.
"""

from typing import Literal

from pydantic import BaseModel

from lratlas.config.presets import preset
from lratlas.data.band_ranges import default_bands
from lratlas.study.jobs import Seed
from lratlas.study.plan import Plan
from lratlas.study.planning import make_plan

Name = Literal["mlp", "resnet"]
RUNS_A_REPEAT = {"mlp": 391, "resnet": 200}  # in the table of runs, averages included
IMAGES, TEST_IMAGES, SIDE, STEPS_PER_EPOCH = 50_000, 10_000, 32, 390  # of CIFAR-10, batches of 128


def plan_of(name: Name, runs: int, *, old: Plan | None = None, segment_steps: int | None = None) -> Plan:
    """The plan of a study with about this many runs, rounded up to whole repetitions.

    Args:
        name: Which study.
        runs: Rows in its table of runs.
        old: The plan that is extended.
        segment_steps: Steps between two checkpoints; None for the default.
    """
    repeats = -(-runs // RUNS_A_REPEAT[name])
    spec = preset({"mlp": "ticks", "resnet": "cifar10-resnet"}[name])
    changes: dict[str, BaseModel] = {"pretrain": spec.pretrain.model_copy(update={"repeats": repeats})}
    if segment_steps:
        changes["training"] = spec.training.model_copy(update={"segment_steps": segment_steps})
    spec = spec.model_copy(update=changes)
    stacked = name == "mlp"
    seeds = [
        Seed(
            seed=number,
            data_seed=1 + number if stacked else None,
            training_seed=1 + number,
            fingerprint=f"{number if stacked else 0:016x}",
        )
        for number in range(repeats)
    ]
    return make_plan(
        spec,
        seeds,
        steps_per_epoch=STEPS_PER_EPOCH,
        chance_loss=1.0,
        chance_accuracy=0.5,
        elr=True,
        measured={
            **({"features": {}} if stacked else {"bands": {"bands": tuple(map(tuple, default_bands(SIDE, SIDE)))}}),
            "geometry": {"great_circle": False},
        },
        strategy="stack" if stacked else "single",
        old=old,
    )
