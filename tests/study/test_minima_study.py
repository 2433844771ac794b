"""Studies with a second PLR, epochs to convergence, norms, sharpness, the great circle and bisection."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

import lratlas
from cheaper import workerless
from lratlas import Task
from lratlas.analysis.minima import at_equal_loss, pool_norms
from lratlas.atlas import Atlas, load
from lratlas.config.sections import RefineSpec, Spec
from lratlas.config.spec import spec_from
from lratlas.errors import JobsFailed, SpecError, StudyError
from lratlas.models.mlp import MLP
from lratlas.study.progress import next_plr
from lratlas.study.run import run_study
from lratlas.study.store import Store
from study.fixtures import explored_in

Explored = Callable[..., Atlas]
Made = Callable[..., Task]

MORE: dict[str, Any] = {
    "second": {"plrs": [1e-1], "lrs": [1e-3, 1e-2], "steps": 10},
    "measure": {
        "great_circle": True,
        "convergence": True,
        "norms": True,
        "sharpness": True,
        "sharpness_samples": 20,
        "interpolation": 5,
    },
}


@pytest.fixture(scope="module")
def minima(tmp_path_factory: pytest.TempPathFactory, small_task: Made) -> Path:
    """A finished study with everything that Fig. 11 to 13 and 26 need; to be read, not changed."""
    folder = tmp_path_factory.mktemp("minima") / "study"
    with workerless():
        explored_in(folder, small_task(), **MORE)
    return folder


def test_a_second_plr_stands_between_pre_training_and_fine_tuning(minima: Path):
    runs = load(minima).table("runs")
    second = runs.filter(stage="second")
    assert sorted(second.select("plr", "plr2", "seed", "steps").rows()) == [
        (0.1, plr2, seed, 10) for plr2 in (1e-3, 1e-2) for seed in (0, 1)
    ]
    above = second.join(runs, left_on="parent", right_on="run", suffix="_above")
    assert (above["stage_above"] == "pretrain").all()
    assert (above["plr_above"] == 0.1).all()
    tuned = runs.filter(pl.col("plr2").is_not_null(), stage="finetune")
    assert tuned.height == 2 * second.height
    below = tuned.join(second, left_on="parent", right_on="run", suffix="_above")
    assert below.height == tuned.height
    assert (below["plr2"] == below["plr2_above"]).all()
    # Models distinguished by one PLR alone are those that came directly.
    tables = load(minima).tables
    for name in ("features", "norms", "sharpness"):
        assert not tables[name].join(pl.concat([second, tuned]), on="run").height
    solutions = runs.filter(pl.col("plr2").is_null(), pl.col("stage").is_in(["finetune", "average"]), plr=0.1)
    solutions = solutions.filter(pl.col("count").eq_missing(4) | pl.col("flr").is_not_null())  # nearest to 5
    spreads = [
        max(of["test_accuracy"]) - min(of["test_accuracy"]) for (_,), of in solutions.group_by("seed") if of.height > 1
    ]
    assert tables["regimes"].filter(plr=0.1)["spread"].item() == pytest.approx(np.median(spreads))


def test_every_direct_model_is_measured(minima: Path):
    tables = load(minima).tables
    runs = tables["runs"].filter(pl.col("plr2").is_null(), pl.col("stage") != "second")
    assert sorted(tables["sharpness"]["run"]) == sorted(runs["run"])
    assert tables["sharpness"]["top_eigenvalue"].is_not_null().all()
    assert (tables["sharpness"]["residual"].is_not_null()).all()
    joined = tables["sharpness"].join(runs, on="run")
    assert (joined["test_error"] - (1 - joined["test_accuracy"])).abs().max() < 1e-12  # pyright: ignore[reportOperatorIssue]
    norms = tables["norms"]
    own = runs.filter(pl.col("stage") != "average")
    assert set(norms.drop_nulls("run")["run"]) == set(own["run"])
    assert set(norms.filter(stage="initial")["seed"]) == {0, 1}
    # Two layers of six filters hold the whole vector of weights.
    squares = norms.group_by("run", "seed").agg(pl.col("norm").pow(2).sum(), pl.len())
    assert squares["norm"].to_list() == pytest.approx([1.0] * squares.height, abs=1e-6)
    pairs = tables["pairs"]
    assert pairs["test_barrier_arc"].is_not_null().all()
    assert pairs["train_barrier_arc"].is_between(0, 1).all()


def test_epochs_to_convergence_agree_with_the_traces(explored: Explored, small_task: Made, tmp_path: Path):
    """With a trace row for each epoch, the first row without an error is the epoch."""
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(3))
    y = (x[:, 0] > 0).long()
    task = small_task(train=(x, y), test=(x, y), batch_size=8, singles=None)
    atlas = explored(
        tmp_path / "study",
        task,
        pretrain={"lrs": [1e-4, 3e-2, 1e-1], "steps": 240, "repeats": 2},
        finetune=None,
        average=None,
        trace={"points": 120},
        measure={"convergence": True, "features": False},
        training={"compile": False, "strategy": "stack", "stack": 3, "segment_steps": 30},
    )
    tables = atlas.tables
    traces = tables["traces"].join(tables["runs"].select("run", "plr", "seed"), on="run")
    assert traces["epoch"].to_list() == [float(math.floor(epoch)) for epoch in traces["epoch"].to_list()]
    first = (
        traces.filter(pl.col("train_accuracy") > 1 - 1e-6)
        .group_by("plr", "seed")
        .agg(pl.col("epoch").min().cast(pl.Int64).alias("epochs"))
    )
    found = tables["convergence"]
    assert found.select("plr", "seed").rows() == [(plr, seed) for plr in (1e-4, 3e-2, 1e-1) for seed in (0, 1)]
    both = found.join(first, on=["plr", "seed"], how="left", suffix="_traced")
    assert both["epochs"].to_list() == both["epochs_traced"].to_list()
    assert both["epochs"].is_not_null().any()
    assert both["epochs"].is_null().any()
    accuracies = both.join(
        traces, left_on=["plr", "seed", "epochs"], right_on=["plr", "seed", pl.col("epoch").cast(int)]
    )
    assert (accuracies["test_accuracy"] == accuracies["test_accuracy_right"]).all()


def test_norms_and_sharpness_can_be_switched_on_later(finished: Path, explored: Explored):
    before = load(finished).tables
    after = explored(
        finished, measure={"interpolation": 3, "norms": True, "sharpness": True, "sharpness_samples": 20}
    ).tables
    assert_frame_equal(after["runs"], before["runs"])
    assert after["norms"].height > 0
    assert after["sharpness"].height == before["runs"].height


def test_convergence_cannot_be_added_to_a_study(finished: Path, explored: Explored):
    with pytest.raises(
        StudyError, match=r"`measure\.convergence` cannot change, because it is measured during training"
    ):
        explored(finished, measure={"interpolation": 3, "convergence": True})


def least_squares(small_task: Made) -> Task:
    """Two linear regressions on four inputs."""
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    pair, model = (x, x @ torch.ones(4, 2)), partial(torch.nn.Linear, 4, 2, bias=False)
    return small_task(model=model, train=pair, test=pair, loss="mse", rule="sgd", singles=None)


@pytest.mark.usefixtures("explored")  # neither worker processes nor figures
def test_exploring_bisects_and_says_so(small_task: Made, tmp_path: Path):
    notices: list[str] = []
    atlas = lratlas.explore(
        least_squares(small_task),
        folder=tmp_path / "study",
        notice=notices.append,
        pretrain={"lrs": [1e-1, 1e3], "steps": 80, "repeats": 2},
        refine={"boundary": "divergence", "ratio": 10},
        training={"compile": False, "strategy": "stack"},
    )
    assert notices == ["Bisection adds PLR 10.", "Bisection adds PLR 1."]
    assert atlas.regimes["plr"].to_list() == [1e-1, 1, 10, 1e3]
    assert (tmp_path / "study" / "report.html").is_file()
    assert load(tmp_path / "study").next_plr is None


@pytest.mark.usefixtures("explored")
def test_jobs_that_fail_in_a_bisection_leave_the_report_of_what_is_there(
    small_task: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def failing(store: Store, spec: Spec | None, *, more: Sequence[float], **how: Any) -> bool:
        did = run_study(store, spec, more=more, **how)
        if more:
            (tmp_path / "study" / "report.html").write_text("of an earlier state")
            raise JobsFailed("one job failed")
        return did

    monkeypatch.setattr("lratlas.api.explore.run_study", failing)
    with pytest.raises(JobsFailed):
        lratlas.explore(
            least_squares(small_task),
            folder=tmp_path / "study",
            pretrain={"lrs": [1e-1, 1e3], "steps": 80, "repeats": 2},
            refine={"boundary": "divergence", "ratio": 10},
            training={"compile": False, "strategy": "stack"},
        )
    assert "<!doctype html>" in (tmp_path / "study" / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("explored")
def test_a_study_whose_ends_share_a_regime_is_kept_and_the_reason_said(small_task: Made, tmp_path: Path):
    with pytest.raises(StudyError, match=r"divergence boundary cannot be bisected: .*0\.05 and 0\.1.*\(found: 1\)"):
        lratlas.explore(
            least_squares(small_task),
            folder=tmp_path / "study",
            pretrain={"lrs": [5e-2, 1e-1], "steps": 160, "repeats": 2},
            refine={"boundary": "divergence", "ratio": 10},
            training={"compile": False, "strategy": "stack"},
        )
    assert load(tmp_path / "study").table("runs").height == 4
    assert (tmp_path / "study" / "report.html").is_file()


def test_bisection_adds_plrs_to_a_study_until_the_bracket_is_narrow(
    explored: Explored, small_task: Made, tmp_path: Path
):
    """Least squares diverges above twice the inverse of its largest curvature, which is about 1 here."""
    task = least_squares(small_task)
    folder = tmp_path / "study"
    sections: dict[str, Any] = {
        "pretrain": {"lrs": [1e-1, 1e3], "steps": 80, "repeats": 2},
        "finetune": None,
        "average": None,
        "refine": {"boundary": "divergence", "ratio": 100.0},
    }
    atlas = explored(folder, task, **sections)
    assert atlas.regimes.select("plr", "regime").rows() == [(1e-1, "1"), (1e3, "3")]
    assert atlas.next_plr == 10
    again = explored(folder, task, more=(10,), **sections)
    assert again.regimes.select("plr", "regime").rows() == [(1e-1, "1"), (10, "3"), (1e3, "3")]
    assert again.next_plr is None
    # What bisection added does not alter the spec: running it again finds nothing to do.
    assert explored(folder, task, **sections).table("runs").equals(again.table("runs"))


def test_a_run_that_goes_on_is_not_said_never_to_converge(explored: Explored, tmp_path: Path):
    folder = tmp_path / "study"
    whole = explored(
        folder, pretrain={"lrs": [1e-6, 3e-2], "steps": 40}, finetune=None, average=None, measure={"convergence": True}
    )
    assert whole.table("convergence").filter(plr=1e-6)["epochs"].to_list() == [None]
    for part in (folder / "tables" / "runs").iterdir():
        part.unlink()
    assert load(folder).table("convergence")["epochs"].null_count() == 0


def test_models_that_diverged_are_no_models(explored: Explored, small_task: Made, tmp_path: Path):
    task = small_task(model=partial(MLP, 4, (6,), 2), rule="sgd", singles=None)
    atlas = explored(
        tmp_path / "study",
        task,
        pretrain={"lrs": [1e-2, 1e30], "steps": 20},
        finetune={"lrs": [1e-3], "steps": 5},
        average=None,
        measure={"norms": True, "sharpness": True, "features": False},
    )
    lost = atlas.table("runs").filter("diverged")
    assert lost["plr"].unique().to_list() == [1e30]
    assert atlas.table("sharpness")["train_loss"].is_infinite().sum() == 0
    assert set(at_equal_loss(atlas.tables)["plr"]) == {1e-2}
    assert set(pool_norms(atlas.tables)["regime"]) == set(atlas.regimes.filter(plr=1e-2)["regime"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"pretrain": {"lrs": [1e-2], "steps": 5}, "refine": {"ratio": 1.1}},
            r"\[refine\], but a bisection needs at least two",
        ),
        ({"refine": {"boundary": "subregime", "ratio": 1.1}}, r"subregime\", which needs error barriers"),
        ({"refine": {"ratio": 1.0}}, r"`refine\.ratio` is 1\.0"),
    ],
)
def test_a_bisection_that_cannot_work_is_refused_at_once(changes: dict[str, Any], message: str):
    with pytest.raises(SpecError, match=message):
        spec(**changes)


def test_measurements_that_a_task_cannot_give_are_refused(explored: Explored, small_task: Made, tmp_path: Path):
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    regression = small_task(train=(x, x[:, :2]), test=(x, x[:, :2]), loss="mse", singles=None)
    with pytest.raises(SpecError, match=r"`measure\.convergence` is true, but it needs class labels"):
        explored(tmp_path / "a", regression, measure={"convergence": True})
    vectors = small_task(model=Scaled, rule="sgd", singles=None)
    with pytest.raises(SpecError, match=r"`measure\.norms` is true, but no trained weight"):
        explored(tmp_path / "b", vectors, measure={"norms": True})
    normed = small_task(model=Normed, rule="sgd", singles=None)
    with pytest.raises(SpecError, match=r"`measure\.sharpness_samples` is 1, .* batch norm needs at least 2 samples"):
        explored(tmp_path / "c", normed, measure={"sharpness": True, "sharpness_samples": 1})


class Scaled(torch.nn.Module):
    """Two outputs that a vector scales."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :2] * self.scale


class Normed(torch.nn.Sequential):
    """A linear layer with batch norm."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(2))


def test_a_second_plr_above_the_first_is_refused():
    with pytest.raises(SpecError, match=r"`second` has lrs up to 0\.1 and plrs from 0\.01, but each"):
        spec(second={"plrs": [1e-2], "lrs": [1e-1], "steps": 5})


def test_a_second_plr_from_an_unknown_one_is_refused():
    with pytest.raises(SpecError, match=r"0\.05 in second\.plrs, but the pre-training LRs are 0\.001, 0\.01, 0\.1"):
        spec(second={"plrs": [5e-2], "lrs": [1e-3], "steps": 5})


def spec(**sections: Any) -> Any:
    return spec_from({"task": {"preset": "ticks"}, "pretrain": {"lrs": [1e-3, 1e-2, 1e-1], "steps": 20}, **sections})


def made_tables(regimes: dict[float, str], below: float | None, above: float | None) -> dict[str, pl.DataFrame]:
    """The two tables that bisection reads."""
    return {
        "regimes": pl.DataFrame({"plr": list(regimes), "regime": list(regimes.values())}),
        "boundaries": pl.DataFrame(
            {"boundary": ["convergence"], "below": [below], "above": [above], "value": [below]},
            schema_overrides={"below": pl.Float64, "above": pl.Float64, "value": pl.Float64},
        ),
    }


def test_bisection_of_a_known_threshold_ends_within_the_ratio():
    """A training that converges below 0.02 exactly: every step halves the bracket until it is narrow enough."""
    plrs, below, above = [1e-3, 1e-1], 1e-3, 1e-1
    while True:
        regimes = {plr: "1" if plr < 0.02 else "2A" for plr in sorted(plrs)}
        added = next_plr(made_tables(regimes, below, above), RefineSpec(ratio=1.1))
        if added is None:
            break
        assert below < added < above
        plrs.append(added)
        below, above = max(plr for plr in plrs if plr < 0.02), min(plr for plr in plrs if plr >= 0.02)
    assert below < 0.02 <= above <= 1.1 * below
    # Each halving takes the square root of the ratio: log2(log(100) / log(1.1)) = 5.6 of them.
    assert len(plrs) == 2 + 6


def test_undecided_plrs_divide_a_bracket_too():
    regimes = {1e-3: "1", 8e-3: "undecided", 1e-2: "2A"}
    assert next_plr(made_tables(regimes, 1e-3, 1e-2), RefineSpec(ratio=1.3)) == pytest.approx(math.sqrt(8e-6), rel=1e-3)
    assert next_plr(made_tables(regimes, 1e-3, 1e-2), RefineSpec(ratio=9.0)) is None


def test_a_gap_too_narrow_for_a_number_between_is_left():
    regimes = {1.0: "1", 1.00001: "2A"}
    assert next_plr(made_tables(regimes, 1.0, 1.00001), RefineSpec(ratio=1.001)) is None


def test_ends_in_the_same_regime_cannot_be_bisected():
    tables = made_tables({1e-3: "1", 1e-2: "1"}, None, None)
    with pytest.raises(StudyError, match=r"convergence boundary cannot be bisected: .*0\.001 and 0\.01.*\(found: 1\)"):
        next_plr(tables, RefineSpec(ratio=1.1))
