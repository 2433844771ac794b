"""A whole study of images: its tables, its stored statistics, and the same bits after every interruption."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from torch import Tensor, nn

from lratlas.atlas import Atlas, load
from lratlas.config.tasks import tasks_from
from lratlas.errors import StudyError
from lratlas.rng import stream
from lratlas.study.store import Store
from lratlas.tables import SCHEMAS
from lratlas.training.batches import batch_indices
from lratlas.training.prepared import Prepared
from study.pictures import SIZE, TRAIN, picture_options, picture_spec

Conducted = Callable[..., Atlas]
PLRS, FLRS = [1e-3, 1e-1], [1e-4, 1e-3]
# Of 8 x 8 pixels the highest band is 8; quarters of it are the borders.
BANDS = [(0, 0), (1, 2), (3, 6), (7, 8)]
OWN = """
import torch

def adam(parameters, lr):
    return torch.optim.NAdam(parameters, lr=lr)
"""


def task_of(atlas: Atlas) -> Prepared:
    return tasks_from(atlas.spec.task).of(0)


def assert_same_study(one: Atlas, other: Atlas) -> None:
    """All tables, but for seconds, and all weights are the same to the last bit."""
    for name in SCHEMAS:
        tables = [each.table(name).drop("seconds", strict=False) for each in (one, other)]
        assert_frame_equal(*tables, check_exact=True)
    assert one.store.weights() == other.store.weights() != []
    for name in one.store.weights():
        first, second = (
            {key: value for key, value in each.store.read_weights(name).items() if key != "stack/seconds"}
            for each in (one, other)
        )
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_every_table_has_its_columns_and_its_rows(picture_study: Path):
    tables = load(picture_study).tables
    assert {name: table.schema for name, table in tables.items()} == SCHEMAS
    grid = (
        {("pretrain", plr, None, None, 12) for plr in PLRS}
        | {("finetune", plr, flr, None, 8) for plr, flr in product(PLRS, FLRS)}
        | {("average", plr, None, 2, 12) for plr in PLRS}
    )
    runs = tables["runs"]
    assert len(runs) == len(grid)
    assert set(runs.select("stage", "plr", "flr", "count", "steps").rows()) == grid
    assert sorted(tables["pairs"].select("plr", "a", "b").rows()) == sorted(
        (plr, a, b) for plr, (a, b) in product(PLRS, [("low", "high"), ("low", "swa"), ("high", "swa")])
    )
    assert set(tables["traces"]["run"]) == set(runs.filter(pl.col("stage") != "average")["run"])
    assert tables["features"].is_empty()
    always = {
        "runs": ["train_loss", "train_accuracy", "test_loss", "test_accuracy"],
        "traces": list(SCHEMAS["traces"]),
        "pairs": [name for name in SCHEMAS["pairs"] if not name.endswith("_arc")],
        "bands": ["run", "stage", "plr", "seed", "low", "high", "kept", "accuracy"],
    }
    for name, columns in always.items():
        assert tables[name].select(columns).null_count().sum_horizontal().item() == 0


def test_bands_are_measured_on_every_run_kept_and_removed(picture_study: Path):
    atlas = load(picture_study)
    bands, runs = atlas.table("bands"), atlas.table("runs")
    wanted = product(runs["run"], BANDS, [True, False])
    found = sorted(
        (run, (low, high), kept) for run, low, high, kept in bands.select("run", "low", "high", "kept").rows()
    )
    assert found == sorted(wanted)
    keys = ["run", "stage", "plr", "flr", "count", "seed"]
    assert_frame_equal(bands.select(keys).unique(), runs.select(keys), check_row_order=False)


def test_a_row_of_bands_is_the_accuracy_on_images_with_other_frequencies_set_to_zero(picture_study: Path):
    """By plain arithmetic: the whole transform, a mask of |k| + |l|, and back."""
    atlas = load(picture_study)
    task = task_of(atlas)
    x, y = task.inputs(task.test[0]), task.test[1]
    cycles = (torch.fft.fftfreq(SIZE) * SIZE).abs()
    distance = cycles[:, None] + cycles
    for (run,), rows in atlas.table("bands").group_by("run"):
        model = atlas.model(str(run))
        for row in rows.iter_rows(named=True):
            inside = (distance >= row["low"]) & (distance <= row["high"])
            mask = inside if row["kept"] else ~inside
            filtered = torch.fft.ifft2(torch.fft.fft2(x.double()) * mask).real.float()
            with torch.no_grad():
                accuracy = (model(filtered).argmax(1) == y).double().mean()
            # One image of 30 may lie on a border between classes, for the last bits of the two transforms differ.
            assert row["accuracy"] == pytest.approx(float(accuracy), abs=1 / 30 + 1e-9)


def test_bands_sit_in_the_report(picture_study: Path):
    atlas = load(picture_study)
    for name in ("bands", "band_picture"):
        assert atlas.chart(name).to_dict()["$schema"].startswith("https://vega.github.io/schema/vega-lite/")
    with pytest.raises(StudyError, match="features"):
        atlas.chart("features")


def batch_norm_inputs(model: nn.Module, batches: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """What each batch norm is given in passes in train mode, in float64: [values, channels]."""
    seen: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: seen.setdefault(name, []).append(inputs[0].movedim(1, -1).flatten(0, 2))

    hooks = [
        module.register_forward_pre_hook(keep(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts).double() for name, parts in seen.items()}


def test_averaged_runs_have_statistics_pooled_over_the_training_set(picture_study: Path):
    """By a plain pass over the training images without augmentation, in even batches of 12 at most."""
    atlas = load(picture_study)
    task = task_of(atlas)
    runs = atlas.table("runs").filter(stage="average")["run"]
    assert len(runs) == 2
    for run in runs:
        stored = atlas.model(run).state_dict()
        # 50 images in even parts of at most 12: five of ten.
        order = torch.from_numpy(stream(0, "statistics").permutation(50))
        batches = task.inputs(task.train[0])[order].split(10)
        found = batch_norm_inputs(atlas.model(run).train(), batches)
        assert len(found) == 4
        for name, values in found.items():
            assert torch.allclose(stored[f"{name}.running_mean"].double(), values.mean(0), rtol=1e-4, atol=1e-5)
            assert torch.allclose(stored[f"{name}.running_var"].double(), values.var(0), rtol=1e-4, atol=1e-5)


def test_pre_training_uses_the_augmentation(picture_study: Path, pictures: Path, conducted: Conducted, tmp_path: Path):
    plain = picture_spec(pictures, task={"options": picture_options(pictures, augment=[])}, finetune=None, average=None)
    without = conducted(tmp_path / "study", plain).table("runs")
    with_it = load(picture_study).table("runs").filter(stage="pretrain")
    assert not set(without["train_loss"]) & set(with_it["train_loss"])


def test_fine_tuning_starts_from_the_weights_and_the_running_statistics_of_its_parent(
    pictures: Path, conducted: Conducted, tmp_path: Path
):
    """One step with a tiny LR: the weights stay, the statistics take in the first batch of the order, as in a loop."""
    task = {"options": picture_options(pictures, augment=[])}
    spec = picture_spec(pictures, task=task, finetune={"lrs": [1e-12], "steps": 1}, average=None)
    atlas = conducted(tmp_path / "study", spec)
    first = batch_indices(seed=1, start=0, stop=1, samples=TRAIN, batch_size=12)[0]
    made = task_of(atlas)
    runs = atlas.table("runs").filter(stage="finetune")
    assert len(runs) == 2
    for run, parent in runs.select("run", "parent").rows():
        model = atlas.model(parent).train()
        with torch.no_grad():
            model(made.inputs(made.train[0][first]))
        wanted, found = model.state_dict(), atlas.model(run).state_dict()
        assert wanted.keys() == found.keys()
        for name, value in wanted.items():
            assert torch.allclose(found[name].double(), value.double(), rtol=1e-5, atol=1e-6), name
        assert found["layers.1.num_batches_tracked"] == 13


def test_a_study_interrupted_again_and_again_ends_with_the_same_bits(
    picture_study: Path, pictures: Path, conducted: Conducted, tmp_path: Path
):
    """Interrupted after its n-th file of weights or part of a table, in the middle of a job or between two."""
    for call, at in (("write_weights", 1), ("write_weights", 4), ("write_table", 10)):
        with interrupted(call, at):
            conducted(tmp_path / "study", picture_spec(pictures))
        assert len(load(tmp_path / "study").table("bands")) < len(load(picture_study).table("bands"))
    assert_same_study(conducted(tmp_path / "study", picture_spec(pictures)), load(picture_study))


@contextmanager
def interrupted(call: str, at: int) -> Generator[None]:
    """As by Ctrl-C, once the store has written this for the n-th time."""
    write: Callable[..., None] = getattr(Store, call)
    calls = 0

    def stop(*arguments: Any) -> None:
        nonlocal calls
        write(*arguments)
        calls += 1
        if calls == at:
            raise KeyboardInterrupt

    with patch.object(Store, call, stop), pytest.raises(KeyboardInterrupt):
        yield


def test_more_bands_are_measured_without_training_anything_again(
    picture_study: Path, pictures: Path, conducted: Conducted, tmp_path: Path
):
    few = picture_spec(pictures, measure={"bands": False, "interpolation": 3})
    atlas = conducted(tmp_path / "study", few)
    assert atlas.table("bands").is_empty()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "study/checkpoints").iterdir()}
    for bands, count in (([[1, 2]], 1), ([[1, 2], [0, 4]], 2)):
        atlas = conducted(tmp_path / "study", picture_spec(pictures, measure={"bands": bands, "interpolation": 3}))
        assert len(atlas.table("bands")) == 8 * count * 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "study/checkpoints").iterdir()} == before
    both = atlas.table("bands").filter(low=1, high=2)
    usual = load(picture_study).table("bands").filter(low=1, high=2)
    assert_frame_equal(both, usual, check_exact=True)


def test_an_optimizer_named_in_a_spec_goes_on_after_an_interruption(
    pictures: Path, conducted: Conducted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "own_optimizer_of_images.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    rule = {"name": "own_optimizer_of_images:adam"}
    few: Any = {"finetune": {"lrs": [1e-3], "epochs": 1}, "measure": {"bands": False, "interpolation": 3}}
    spec = picture_spec(pictures, task={"rule": rule}, pretrain={"lrs": [1e-2], "epochs": 3}, **few)
    whole = conducted(tmp_path / "whole", spec)
    with interrupted("write_weights", 1):
        conducted(tmp_path / "cut", spec)
    assert [name.rpartition("-")[2] for name in load(tmp_path / "cut").store.weights()] == ["6"]
    assert_same_study(conducted(tmp_path / "cut", spec), whole)
    assert not whole.elr
    assert whole.plan is not None
    assert whole.plan.strategy == "single"


def test_the_page_says_what_was_trained_on_which_data(picture_study: Path):
    atlas = load(picture_study)
    assert atlas.plan is not None
    assert "SI ConvNet of width 2" in atlas.plan.task
    assert f">{atlas.plan.task}</p>" in atlas.report_html()
