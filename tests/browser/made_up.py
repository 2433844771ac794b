"""A synthetic study on disk, of any size, that looks like one of the synthetic ticks with everything measured.

The tests of the report's page and its benchmark read the same kind of study. From the folder `tests`:

    python -m browser.made_up FOLDER --plrs 25 --seeds 10 --flrs 14 --counts 5
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import polars as pl
import torch

from browser import made_up_rows as rows
from lratlas.config.rules import SphereSGD
from lratlas.config.sections import (
    AverageSpec,
    FinetuneSpec,
    MeasureSpec,
    PretrainSpec,
    SecondSpec,
    Spec,
    TaskSpec,
    TrainingSpec,
)
from lratlas.config.spec import spec_text
from lratlas.study.jobs import Seed, Training
from lratlas.study.plan import Plan, plan_text, with_own_versions
from lratlas.study.planning import make_plan
from lratlas.study.store import Store

STAGES = ("pretrain", "second", "finetune")
STEPS = 40_000
# Just below the convergence threshold, as a search for it adds them.
NEAR = (4.5e-3, 5.4e-3, 6e-3, 6.5e-3)
COUNTS = (2, 5, 10, 20, 50, 100, 200)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How large the study is.

    Attributes:
        plrs: Pre-training LRs, at least 14: four just below the convergence threshold, the others from 10^-4.5 to 1.
        seeds: Repetitions.
        flrs: Fine-tuning LRs, from 10^-4.5 to 10^-2.5.
        counts: Numbers of averaged checkpoints, of 2, 5, 10, 20, 50, 100 and 200.
    """

    plrs: int = 16
    seeds: int = 3
    flrs: int = 3
    counts: int = 3


def write_study(
    folder: Path,
    shape: Shape | None = None,
    *,
    name: str = "made-up",
    task: str = "MLP on made-up ticks",
    stages: Sequence[str] = STAGES,
) -> None:
    """Write spec, plan and all stored tables of a study, as training and measuring would have.

    Args:
        folder: Where to; missing or empty.
        shape: How large it is; if None the default.
        name: The study's name.
        task: What was trained, in words.
        stages: The stages that are done. Without all of them the study is unfinished: nothing is measured on the runs
            that lack, nor on pairs of solutions.
    """
    spec = made_up_spec(shape or Shape(), name)
    plan = make_plan(
        spec,
        [
            Seed(seed=i, data_seed=1 + i, training_seed=1 + i, fingerprint=f"{i:016x}")
            for i in range(spec.pretrain.repeats)
        ],
        steps_per_epoch=rows.EPOCH,
        chance_loss=math.log(2),
        chance_accuracy=0.5,
        elr=True,
        measured={
            "features": {},
            "bands": {"bands": rows.BANDS},
            "geometry": {"great_circle": True},
            "norms": {},
            "sharpness": {"sharpness_samples": spec.measure.sharpness_samples},
        },
        task=task,
    )
    store = Store.create(folder, spec_text(spec))
    store.write_text("plan.json", plan_text(with_own_versions(plan)))
    noise = np.random.default_rng(7)
    made = {job.id: rows.run_rows(job, noise) for job in plan.trainings if job.stage in stages}
    for job in plan.trainings:
        if job.id in made:
            _write_training(store, job, made[job.id], noise)
    _write_measurements(store, plan, made, noise)
    if set(stages) == {*STAGES}:
        for job in plan.measuring("geometry"):
            store.write_table("pairs", job.id, rows.pair_rows(_trained(made[job.training or ""]), noise))


def made_up_spec(shape: Shape, name: str) -> Spec:
    """A spec in which everything is measured, and which goes from 2B by way of 2A too."""
    plrs = sorted([*NEAR, *np.logspace(-4.5, 0, shape.plrs - len(NEAR)).tolist()])
    low = [plr for plr in plrs if rows.CONVERGENCE < plr < rows.SUBREGIME]
    high = [plr for plr in plrs if rows.SUBREGIME < plr < rows.DIVERGENCE]
    return Spec(
        name=name,
        task=TaskSpec(preset="ticks", rule=SphereSGD(name="sphere_sgd", radius=1.0)),
        pretrain=PretrainSpec(lrs=tuple(plrs), steps=STEPS, repeats=shape.seeds),
        second=SecondSpec(plrs=tuple(high[:2]), lrs=tuple(low[:1]), steps=STEPS),
        finetune=FinetuneSpec(lrs=tuple(np.logspace(-4.5, -2.5, shape.flrs).tolist()), steps=STEPS // 2),
        average=AverageSpec(counts=COUNTS[: shape.counts], every=100),
        measure=MeasureSpec(great_circle=True, convergence=True, norms=True, sharpness=True),
        training=TrainingSpec(segment_steps=STEPS),
    )


def _trained(runs: pl.DataFrame) -> pl.DataFrame:
    return runs.filter(pl.col("stage") != "average")


def _write_training(store: Store, job: Training, runs: pl.DataFrame, noise: np.random.Generator) -> None:
    part = f"{job.id}-{job.segments[-1]}"
    store.write_table("traces", part, rows.trace_rows(_trained(runs), noise))
    if "convergence" in job.recorded:
        store.write_table("convergence", part, rows.epoch_rows(_trained(runs), noise))
    # A job counts as done when its weights are there.
    store.write_weights(job.id, {"nothing": torch.zeros(1)})
    store.write_table("runs", job.id, runs)


def _write_measurements(store: Store, plan: Plan, made: Mapping[str, pl.DataFrame], noise: np.random.Generator) -> None:
    """What is measured on single models, of the training jobs that are made."""
    for job in plan.measuring("features"):
        if job.training in made:
            store.write_table("features", job.id, rows.feature_rows(made[job.training or ""], noise))
    for job in plan.measuring("bands"):
        if job.training in made:
            store.write_table("bands", job.id, rows.band_rows(made[job.training or ""], noise))
    for job in plan.measuring("sharpness"):
        if job.training in made:
            store.write_table("sharpness", job.id, rows.sharpness_rows(made[job.training or ""], noise))
    for job in plan.measuring("norms"):
        if job.training is None:
            models = rows.initial_models([seed.seed for seed in job.seeds])
            store.write_table("norms", job.id, rows.norm_rows(models, noise))
        elif job.training in made:
            store.write_table("norms", job.id, rows.norm_rows(_trained(made[job.training or ""]), noise))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a made-up study with everything measured.")
    parser.add_argument("folder", type=Path)
    sizes = {field.name: field.default for field in fields(Shape)}
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    given = parser.parse_args()
    write_study(given.folder, Shape(**{name: getattr(given, name) for name in sizes}))


if __name__ == "__main__":
    main()
