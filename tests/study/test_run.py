"""What a study holds at its end, and what calling it again, extending it and damaging it do."""

import math
import shutil
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from torch import nn

from lratlas import Task
from lratlas.atlas import Atlas, load
from lratlas.config.spec import spec_from
from lratlas.errors import SpecError, StudyError, TaskError
from lratlas.execute.messages import failure
from lratlas.execute.run_job import open_context
from lratlas.files import digest, open_json, seal_json
from lratlas.models.mlp import MLP
from lratlas.study import run
from lratlas.study.plan import Plan, store_plan
from lratlas.study.run import open_study, run_study
from lratlas.study.store import Store
from lratlas.study.verify import faults
from lratlas.tables import SCHEMAS
from study.running import damaged

Explored = Callable[..., Atlas]
Made = Callable[..., Task]


def assert_equal_studies(one: Atlas, other: Atlas) -> None:
    """All tables are the same, to the last bit, but for the time they took."""
    for name, table in one.tables.items():
        assert_frame_equal(_timeless(table), _timeless(other.table(name)), check_exact=True)


def _timeless(table: pl.DataFrame) -> pl.DataFrame:
    return table.drop("seconds", strict=False)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Tables and weights with the time of their last change and their identity."""
    found = [path for part in ("tables", "checkpoints") for path in (folder / part).rglob("*") if path.is_file()]
    stats = {str(path.relative_to(folder)): path.stat() for path in found}
    return {name: (stat.st_mtime_ns, stat.st_ino) for name, stat in stats.items()}


def test_every_table_has_its_columns_and_its_rows(finished: Path):
    tables = load(finished).tables
    assert {name: table.schema for name, table in tables.items()} == SCHEMAS
    plrs, flrs, counts, seeds = [1e-3, 1e-2, 1e-1], [1e-3, 1e-2], [2, 4], [0, 1]
    runs = tables["runs"]
    assert runs["run"].n_unique() == len(runs) == 2 * 3 * (1 + 2 + 2)
    grid = runs.select("stage", "plr", "flr", "count", "seed", "steps").rows()
    assert set(grid) == (
        {("pretrain", plr, None, None, seed, 20) for plr, seed in product(plrs, seeds)}
        | {("finetune", plr, flr, None, seed, 12) for plr, flr, seed in product(plrs, flrs, seeds)}
        | {("average", plr, None, count, seed, 20) for plr, count, seed in product(plrs, counts, seeds)}
    )
    assert not runs["diverged"].any()
    assert (runs.filter(pl.col("stage") != "average")["seconds"] > 0).all()
    assert runs["test_accuracy"].is_between(0, 1).all()
    # Rows at every fifth step (20 steps, 4 points), a last one at the end.
    rows = tables["traces"].join(runs, on="run").group_by("stage", "run").agg(pl.col("step").sort())
    wanted = {"pretrain": [5, 10, 15, 20], "finetune": [5, 10, 12]}
    assert rows.height == 6 + 12
    assert all(steps == wanted[stage] for stage, _, steps in rows.rows())
    pairs = tables["pairs"].select("plr", "seed", "a", "b").rows()
    roles = [("low", "high"), ("low", "swa"), ("high", "swa")]
    assert sorted(pairs) == sorted((plr, seed, a, b) for plr, seed, (a, b) in product(plrs, seeds, roles))
    assert tables["features"].select("run", "feature").sort("run", "feature").rows() == sorted(
        product(runs["run"], range(2))
    )
    assert tables["regimes"]["plr"].to_list() == plrs
    assert tables["boundaries"]["boundary"].to_list() == ["convergence", "subregime", "divergence"]


def test_every_run_descends_from_one_of_its_own_plr_and_seed(finished: Path):
    runs = load(finished).table("runs")
    both = runs.join(runs, left_on="parent", right_on="run", suffix="_above")
    assert both.height == runs.filter(pl.col("stage") != "pretrain").height
    assert runs.filter(stage="pretrain")["parent"].null_count() == 6
    assert both["stage_above"].unique().to_list() == ["pretrain"]
    assert (both["plr"] == both["plr_above"]).all()
    assert (both["seed"] == both["seed_above"]).all()


def test_a_last_test_row_of_a_trace_agrees_with_the_run(finished: Path):
    tables = load(finished).tables
    last = tables["traces"].sort("step").group_by("run").last()
    both = tables["runs"].join(last, on="run", suffix="_traced")
    assert both.height == 18
    for name in ("test_loss", "test_accuracy", "gradient_norm"):
        assert both[name].to_list() == both[f"{name}_traced"].to_list()


def test_conducting_a_finished_study_again_touches_nothing(finished: Path, explored: Explored):
    before, tables = files(finished), load(finished)
    assert_equal_studies(explored(finished), tables)
    assert files(finished) == before


def in_format_3(folder: Path) -> None:
    """Rewrite the plan of a study as format 3 had it: without parts of the task, and with other fingerprints."""
    path = folder / "plan.json"
    content: dict[str, Any] = {**open_json(path.read_text()), "format": 3}
    content["spec"] = digest(content["spec"].encode())
    del content["task_parts"], content["spec_digest"], content["finished"]
    (folder / "plan-copy.json").unlink()
    for seed in (seed for job in content["trainings"] for seed in job["seeds"]):
        seed["fingerprint"] = f"other-{seed['fingerprint']}"
    path.write_text(seal_json(content))


@pytest.mark.parametrize("more", [{}, {"pretrain": {"lrs": [1e-3, 1e-2, 1e-1, 1.0], "steps": 20, "repeats": 2}}])
def test_a_finished_study_of_format_3_is_not_that_of_a_task_from_python(
    finished: Path, explored: Explored, more: dict[str, Any]
):
    in_format_3(finished)
    before, plan, spec = files(finished), *((finished / name).read_bytes() for name in ("plan.json", "spec.toml"))
    with pytest.raises(StudyError, match=r"different models, seeds or .* cannot check .* another folder"):
        explored(finished, **more)
    assert files(finished) == before
    assert plan == (finished / "plan.json").read_bytes()
    assert spec == (finished / "spec.toml").read_bytes()
    assert len(load(finished).table("runs")) == 30


@pytest.mark.parametrize("name", ["plan.json", "tables/runs", "checkpoints"])
def test_what_a_damaged_file_needs_is_said_in_the_words_of_a_task_from_python(finished: Path, name: str):
    path = next((finished / name).iterdir()) if (finished / name).is_dir() else finished / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StudyError, match=r"move it to damaged/ and .* again, run the same explore\(\) call again\.$"):
        Store.open(finished).read_weights(path.stem) if name == "checkpoints" else load(finished).tables["runs"]


def test_an_extended_study_keeps_its_files_and_ends_like_one_of_that_size(
    finished: Path, explored: Explored, tmp_path: Path
):
    larger: dict[str, Any] = {
        "pretrain": {"lrs": [1e-3, 3e-3, 1e-2, 1e-1], "steps": 20, "repeats": 3},
        "finetune": {"lrs": [1e-3, 3e-3, 1e-2], "steps": 12},
    }
    before, old = files(finished), load(finished).table("runs")
    new = explored(finished, **larger)
    after = files(finished)
    kept = [name for name in before if not name.startswith("tables/pairs")]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert len(new.table("runs")) == 3 * 4 * (1 + 3 + 2)
    assert_frame_equal(new.table("runs").join(old, on="run", how="semi"), old, check_row_order=False)
    # Stacks are put together in another way, which may change the last bits only.
    whole = explored(tmp_path / "whole", **larger)
    keys = {
        "runs": ["run"],
        "traces": ["run", "step"],
        "pairs": ["plr", "seed", "a", "b"],
        "features": ["run", "feature"],
    }
    for name, key in keys.items():
        one, other = (_timeless(each.table(name)).sort(key) for each in (new, whole))
        assert_frame_equal(one, other, rel_tol=1e-4, abs_tol=1e-5)


def test_new_flrs_replace_the_comparison_of_the_solutions(finished: Path, explored: Explored):
    old = load(finished).table("pairs")
    new = explored(finished, finetune={"lrs": [1e-3, 1e-2, 0.3], "steps": 12}).table("pairs")
    key = ["plr", "seed", "a", "b"]
    assert sorted(new.select(key).rows()) == sorted(old.select(key).rows())
    changed = old.join(new, on=key).filter(pl.col("angle") != pl.col("angle_right"))
    assert {(a, b) for a, b in changed.select("a", "b").rows()} == {("low", "high"), ("high", "swa")}


@pytest.mark.parametrize(
    "kind",
    ["tables/runs/pretrain-", "tables/traces/finetune-", "tables/pairs/", "tables/features/", "checkpoints/pretrain-"],
)
def test_a_damaged_file_is_set_aside_named_and_made_again(
    kind: str, finished: Path, explored: Explored, whole_study: Path
):
    name = min(each for each in files(finished) if each.startswith(kind))
    path = finished / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    notices: list[str] = []
    atlas = explored(finished, notices=notices)
    assert notices == [f"{name} is damaged; it is moved to damaged/ and made again."]
    assert (finished / "damaged" / name).read_bytes() == whole[: len(whole) // 2]
    assert_equal_studies(atlas, load(whole_study))
    assert damaged(Store.open(finished)) == []


def test_a_damaged_plan_is_made_again(finished: Path, explored: Explored, whole_study: Path):
    plan = finished / "plan.json"
    text = plan.read_text()
    plan.write_text(text[:-100])
    before, notices = files(finished), list[str]()
    assert_equal_studies(explored(finished, notices=notices), load(whole_study))
    assert notices == ["plan.json is damaged; it is moved to damaged/ and made again."]
    assert plan.read_text() == text
    assert files(finished) == before


@pytest.mark.parametrize("copied", [True, False], ids=["with its copy", "and its copy"])
def test_a_damaged_plan_of_an_extended_study_costs_what_it_must_and_says_so(
    finished: Path, explored: Explored, copied: bool
):
    more = {"lrs": [1e-3, 3e-3, 1e-2, 1e-1], "steps": 20, "repeats": 2}
    before = {name: explored(finished, pretrain=more).tables[name] for name in ("runs", "pairs")}
    kept, notices = files(finished), list[str]()
    for name in ("plan.json",) if copied else ("plan.json", "plan-copy.json"):
        (finished / name).write_text("{}")
    after = explored(finished, notices=notices, pretrain=more)
    assert notices[0] == "plan.json is damaged; it is moved to damaged/ and made again."
    assert (files(finished) == kept) == copied
    assert any("The copy of the plan is missing" in each for each in notices) != copied
    assert faults(after.store) == []
    for name, table in before.items():
        key = "run" if name == "runs" else ["plr", "seed", "a", "b"]
        one, other = (_timeless(each).sort(key) for each in (table, after.tables[name]))
        # In other stacks the last bits of sums may be others.
        assert_frame_equal(one, other, check_exact=copied, rel_tol=1e-4, abs_tol=1e-5)


def test_weights_that_are_made_again_are_the_same(finished: Path, explored: Explored, whole_study: Path):
    for path in (finished / "checkpoints").iterdir():
        path.write_bytes(b"")
    explored(finished, notices=[])
    old, new = Store.open(whole_study), Store.open(finished)
    assert new.weights() == old.weights() != []
    for name in old.weights():
        one, other = old.read_weights(name), new.read_weights(name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_lost_part_of_a_trace_is_trained_again_from_before_it(explored: Explored, tmp_path: Path, whole_study: Path):
    """The first half of a job is done, its trace is then lost: its checkpoint alone must not count."""

    def stop_at_segment_end(store: Store, name: str, tensors: Any) -> None:
        write(store, name, tensors)
        if name.endswith("-10"):
            raise KeyboardInterrupt

    write = Store.write_weights
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "write_weights", stop_at_segment_end)
        with pytest.raises(KeyboardInterrupt):
            explored(tmp_path / "study")
    (part,) = (tmp_path / "study/tables/traces").iterdir()
    assert part.name.endswith("-10.parquet")
    part.write_bytes(b"cut")
    notices: list[str] = []
    assert_equal_studies(explored(tmp_path / "study", notices=notices), load(whole_study))
    assert len(notices) == 1
    assert not [name for name in Store.open(tmp_path / "study").weights() if name.endswith("-10")]


def test_a_run_that_diverges_is_recorded_and_the_others_go_on(explored: Explored, small_task: Made, tmp_path: Path):
    task = small_task(model=partial(MLP, 4, (6,), 2), rule="sgd", singles=None)
    changes: dict[str, Any] = {"average": None, "finetune": {"lrs": [1e-3], "steps": 6}}
    both = explored(tmp_path / "both", task, pretrain={"lrs": [1e-2, 1e30], "steps": 20}, **changes)
    alone = explored(tmp_path / "alone", task, pretrain={"lrs": [1e-2], "steps": 20}, **changes)
    runs = both.table("runs").filter(stage="pretrain")
    assert dict(runs.select("plr", "diverged").rows()) == {1e-2: False, 1e30: True}
    good, diverged = (runs.filter(plr=plr).row(0, named=True) for plr in (1e-2, 1e30))
    other = alone.table("runs").filter(stage="pretrain").row(0, named=True)
    assert good["run"] == other["run"]
    assert good["test_loss"] == pytest.approx(other["test_loss"], rel=1e-5)
    assert diverged["train_loss"] is None or math.isfinite(diverged["train_loss"])
    assert dict(both.regimes.select("plr", "regime").rows())[1e30] == "3"
    assert len(both.table("runs")) == 4


@pytest.mark.parametrize("rule", [{"name": "sgd", "momentum": 0.9}, {"name": "adam"}, {"name": "sphere_sgd"}])
def test_training_on_for_averages_is_one_longer_training(
    rule: dict[str, Any], explored: Explored, small_task: Made, tmp_path: Path
):
    """SWA-1 is the end point of a run that is one checkpoint longer, SWA-2 the mean of two such."""
    task = small_task(model=partial(MLP, 4, (6,), 2, scale_invariant=True), rule=rule, singles=None)
    lrs = [1e-3, 1e-2]
    training = {"compile": False, "segment_steps": 4, "dtype": "float64"}
    on = explored(
        tmp_path / "on",
        task,
        pretrain={"lrs": lrs, "steps": 12},
        finetune=None,
        average={"counts": [1, 2], "every": 2, "extend": True},
        training=training,
    )
    longer, shorter = (
        explored(
            tmp_path / str(steps),
            task,
            pretrain={"lrs": lrs, "steps": steps},
            finetune=None,
            average=None,
            training=training,
        )
        for steps in (16, 14)
    )

    def weights(atlas: Atlas, plr: float, count: int | None = None) -> torch.Tensor:
        runs = atlas.table("runs").filter(pl.col("plr") == plr, pl.col("count").eq_missing(count))
        assert atlas.plan is not None
        run = runs["run"].item()
        saved = atlas.store.read_weights(atlas.plan.holders()[run])
        return torch.cat([saved[name].flatten() for name in sorted(saved) if name.startswith(f"{run}/weights/")])

    for plr in lrs:
        end, before = weights(longer, plr), weights(shorter, plr)
        assert torch.allclose(weights(on, plr, 1), before, rtol=0, atol=1e-12)
        mean = (end + before) / 2
        mean = mean / mean.norm() if rule["name"] == "sphere_sgd" else mean
        assert torch.allclose(weights(on, plr, 2), mean, rtol=0, atol=1e-12)
    stages = on.table("runs").select("stage", "steps").unique().sort("stage", "steps").rows()
    assert stages == [("average", 14), ("average", 16), ("pretrain", 12)]


def test_studies_without_second_stage_have_empty_tables_for_it(explored: Explored, small_task: Made, tmp_path: Path):
    atlas = explored(tmp_path / "study", small_task(singles=None), finetune=None, average=None)
    assert (len(atlas.table("runs")), len(atlas.table("pairs")), len(atlas.table("features"))) == (6, 0, 0)
    assert atlas.boundaries.height == 3


def test_a_study_of_another_task_is_refused_and_stays_as_it_was(finished: Path, explored: Explored, small_task: Made):
    task = small_task()
    other = small_task(train=(task.train[0] + 0.01, task.train[1]))
    before = files(finished)
    with pytest.raises(
        StudyError, match=r"holds a study of a different task: the training data changed\. Use another folder"
    ):
        explored(finished, other)
    with pytest.raises(StudyError, match=r"holds another study: `pretrain\.steps` is 20 in the study, but 30"):
        explored(finished, pretrain={"lrs": [1e-3, 1e-2, 1e-1], "steps": 30, "repeats": 2})
    with pytest.raises(StudyError, match=r"holds another study: `pretrain\.lrs` holds 0\.1"):
        explored(finished, pretrain={"lrs": [1e-3, 1e-2], "steps": 20, "repeats": 2})
    more = {"lrs": [1e-3, 1e-2, 1e-1, 1.0], "steps": 20, "repeats": 2}
    with pytest.raises(StudyError, match="holds a study of a different task"):
        explored(finished, other, pretrain=more)
    assert files(finished) == before
    explored(finished)
    assert files(finished) == before


def test_averages_that_do_not_fit_can_be_put_right(explored: Explored, tmp_path: Path):
    with pytest.raises(SpecError, match=r"SWA-9 needs 9 checkpoints, 5 steps apart.* at most 4 checkpoints fit"):
        explored(tmp_path / "study", average={"counts": [9]})
    assert not load(tmp_path / "study").plan
    assert len(explored(tmp_path / "study", average={"counts": [3]}).table("runs")) == 6 * 4


def test_workers_that_cannot_be_are_refused(tmp_path: Path):
    spec = spec_from({"task": {"preset": "digits"}, "pretrain": {"lrs": [0.1], "steps": 1}})
    store = open_study(tmp_path / "study", spec)
    for workers in (-1, True, False):
        with pytest.raises(StudyError, match=rf"workers is {workers}; it must be .*at least 0"):
            run_study(store, workers=workers)
    with pytest.raises(StudyError, match=r"workers is 100000, but at most 1,024 processes are allowed"):
        run_study(store, workers=100_000)
    with pytest.raises(StudyError, match=r"gpu_share is 0\.5, but there is no cluster"):
        run_study(store, gpu_share=0.5)
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["spec.toml"]


def with_dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2))


def test_what_training_draws_at_random_is_the_same_after_an_interruption(
    explored: Explored, small_task: Made, tmp_path: Path
):
    task = small_task(model=with_dropout, rule="sgd", singles=None)
    whole = explored(tmp_path / "whole", task)
    torch.rand(7)  # another state of the process's own generator
    cut = explored(tmp_path / "cut", task)
    assert_equal_studies(whole, cut)
    assert cut.plan is not None
    Path(cut.folder, f"tables/runs/{cut.plan.trainings[0].id}.parquet").unlink()
    assert_equal_studies(whole, explored(tmp_path / "cut", task))


class Projected(nn.Module):
    """A model with its own random constant."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("projection", torch.randn(4, 6))
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((x @ self.get_buffer("projection")).relu())


def test_models_keep_their_constants_on_the_way_between_two_solutions(
    explored: Explored, small_task: Made, tmp_path: Path
):
    task = small_task(model=Projected, rule="sgd", singles=None)
    atlas = explored(tmp_path / "study", task, finetune={"lrs": [1e-9, 2e-9], "steps": 12}, average=None)
    x, y = task.test
    for row in atlas.table("pairs").iter_rows(named=True):
        runs = atlas.table("runs").filter(stage="finetune", plr=row["plr"], seed=row["seed"]).sort("flr")
        ends = [atlas.model(run, task) for run in runs["run"]]
        errors = [float((end(x).argmax(1) != y).double().mean()) for end in ends]
        # The two ends are next to each other: the path between them has their errors, if the constants are theirs.
        assert errors[0] == errors[1]
        assert row["test_barrier"] == pytest.approx(0, abs=1e-12)
    assert len(atlas.table("pairs")) == 6


def test_a_loss_without_a_positive_chance_level_is_refused_before_training(
    explored: Explored, small_task: Made, tmp_path: Path
):
    def loss(outputs: torch.Tensor, _targets: torch.Tensor) -> torch.Tensor:
        return outputs.mean() * 0 - 5

    numbers = {name: (x, y.float()) for name, (x, y) in (("train", small_task().train), ("test", small_task().test))}
    with pytest.raises(TaskError, match="must be above 0"):
        explored(tmp_path / "study", small_task(loss=loss, singles=None, **numbers))


def test_features_of_four_classes_are_compared_with_a_guess_among_four(
    explored: Explored, small_task: Made, tmp_path: Path
):
    draw = torch.Generator().manual_seed(0)
    x, singles = torch.randn(80, 4, generator=draw), torch.randn(3, 40, 4, generator=draw)
    noise = torch.tensor([0.0, 0.7, 1.5])[:, None, None] * torch.randn(3, 40, 4, generator=draw)
    task = small_task(
        model=partial(MLP, 4, (6,), 4, scale_invariant=True),
        train=(x, x.argmax(1)),
        test=(x, x.argmax(1)),
        singles=(singles, (singles + noise).argmax(2)),
    )
    atlas = explored(tmp_path / "study", task, finetune=None, average=None, pretrain={"lrs": [0.03], "steps": 200})
    assert atlas.plan is not None
    assert atlas.plan.chance_accuracy == 1 / 4
    excess = [max(accuracy - 1 / 4, 0) for accuracy in atlas.table("features")["accuracy"]]
    assert sum(excess) > 0
    assert atlas.table("sparsity")["top_share"].item() == pytest.approx(max(excess) / sum(excess))


def test_a_folder_that_is_removed_during_a_run_ends_it_in_one_sentence(explored: Explored, tmp_path: Path):
    write = Store.write_weights

    def remove_first(store: Store, name: str, tensors: Any) -> None:
        shutil.rmtree(store.root)
        write(store, name, tensors)

    removed = pytest.raises(StudyError, match="study was removed while in use")
    with patch.object(Store, "write_weights", remove_first), removed as caught:
        explored(tmp_path / "study")
    assert not (tmp_path / "study").exists()
    assert failure(caught.value)["final"], "a worker that meets it ends the whole study"


def test_a_worker_that_starts_after_its_folder_was_removed_says_so(tmp_path: Path):
    for folder in (tmp_path / "study", tmp_path):  # removed, and emptied
        with pytest.raises(StudyError, match=f"{folder.name} was removed while in use") as caught:
            open_context(str(folder), "", None)
        assert failure(caught.value)["final"], "the whole study ends with that sentence"


@pytest.mark.parametrize("at", ["before it", "after it"])
def test_a_kill_around_the_plan_of_a_larger_grid_leaves_no_faults(explored: Explored, tmp_path: Path, at: str):
    folder = tmp_path / "study"
    few = {"lrs": [1e-3], "steps": 12}
    explored(folder, finetune=few)
    known = Store.open(folder).parts("pairs")

    def stop(store: Store, plan: Plan) -> None:
        larger = not {job.id for job in plan.measurements} >= known
        if at == "after it" or not larger:
            store_plan(store, plan)
        if larger:
            raise KeyboardInterrupt

    with patch.object(run, "store_plan", stop), pytest.raises(KeyboardInterrupt):
        explored(folder)
    # The spec is written before the plan, and the next run takes it in.
    assert {fault.path for fault in faults(Store.open(folder))} <= {"spec.toml"}
    notices = list[str]()
    explored(folder, notices=notices)
    assert faults(Store.open(folder)) == []
    assert [said for said in notices if "damaged" in said] == []
    assert not Store.open(folder).parts("pairs") & known
