"""One spec, one plan, one result: whatever is started or edited meanwhile, a study is that of its plan's spec."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from cheaper import undrawn, workerless
from lratlas import explore
from lratlas.api.explore import resume
from lratlas.atlas import Atlas, load
from lratlas.config.sections import Spec
from lratlas.config.spec import read_spec, spec_text
from lratlas.errors import StudyError
from lratlas.execute.run_job import open_context
from lratlas.study.plan import read_stored_plan
from lratlas.study.run import open_study, run_study
from lratlas.study.store import Store
from lratlas.study.verify import faults
from study.test_faults import AVERAGE, SPEC, silent

GIVEN = SPEC.format(average=AVERAGE)
OTHERS = {
    "another grid": ("lrs = [1e-3, 1e-2]\nsteps = 20", "lrs = [1e-2, 1e-1]\nsteps = 20"),
    "other steps": ("steps = 20", "steps = 30"),
    "other averages": ("every = 5", "every = 3"),
    "other traces": ("points = 4", "points = 5"),
}


@pytest.fixture
def spec_with(tmp_path: Path) -> Callable[..., Spec]:
    """The spec, with a text in it replaced."""

    def make(old: str = "", new: str = "") -> Spec:
        assert old in GIVEN
        path = tmp_path / "given.toml"
        path.write_text(GIVEN.replace(old, new))
        return read_spec(path)

    return make


def is_of(folder: Path, spec: Spec) -> bool:
    """Whether a folder holds the whole study of a spec, and nothing else."""
    store = Store.open(folder)
    plan = read_stored_plan(store)
    runs = load(folder).table("runs")
    asked = {*runs.filter(stage="pretrain").select("plr", "steps").rows()}
    return (
        plan is not None
        and plan.spec == store.read_text("spec.toml") == spec_text(spec)
        and asked == {(lr, spec.pretrain.steps) for lr in spec.pretrain.lrs}
        and faults(store) == []
    )


@pytest.mark.parametrize("other", OTHERS)
def test_of_two_specs_that_both_found_the_folder_new_the_second_is_refused(
    spec_with: Callable[..., Spec], tmp_path: Path, other: str
):
    specs, folder = (spec_with(), spec_with(*OTHERS[other])), tmp_path / "study"
    store, _ = (open_study(folder, spec) for spec in specs)  # neither is planned yet
    with workerless():
        run_study(store, specs[0])
        with pytest.raises(StudyError, match="holds another study: `"):
            run_study(store, specs[1])
    assert is_of(folder, specs[0])


def test_of_two_specs_that_are_started_at_once_one_is_done(spec_with: Callable[..., Spec], tmp_path: Path):
    specs, folder = (spec_with(), spec_with(*OTHERS["other steps"])), tmp_path / "study"
    with workerless(), undrawn(), ThreadPoolExecutor(2) as pool:
        running = [pool.submit(explore, spec, folder=folder, notice=silent) for spec in specs]
        errors = [each.exception() for each in running]
    (winner,) = [spec for spec, error in zip(specs, errors, strict=True) if error is None]
    assert any("holds another study: `pretrain.steps`" in str(error) for error in errors)
    assert is_of(folder, winner)


def test_one_that_waited_adds_to_what_was_done_meanwhile(spec_with: Callable[..., Spec], tmp_path: Path):
    folder = tmp_path / "study"
    larger = spec_with("lrs = [1e-3, 1e-2]\nsteps = 20", "lrs = [1e-3, 1e-2, 1e-1]\nsteps = 20")
    store, _ = (open_study(folder, spec) for spec in (spec_with(), larger))
    with workerless():
        run_study(store, spec_with())
        run_study(store, larger)
    assert is_of(folder, larger)


def test_a_spec_that_is_edited_during_a_run_changes_nothing_of_it(spec_with: Callable[..., Spec], tmp_path: Path):
    """The number of points on the way between two solutions is in no id: with another one other rows would come."""

    def explored(name: str, edit: Callable[[Path], None]) -> Atlas:
        with undrawn(), ThreadPoolExecutor(1) as pool:
            return explore(
                spec_with(),
                folder=tmp_path / name,
                executor=pool,
                notice=silent,
                progress=lambda _: edit(tmp_path / name / "spec.toml"),
            )

    def edit(path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        assert "interpolation = " in text
        path.write_text(text.replace("interpolation = 3\n", "interpolation = 30\n"), encoding="utf-8")

    quiet, edited = explored("quiet", lambda _: None), explored("edited", edit)
    assert_frame_equal(quiet.table("pairs"), edited.table("pairs"), check_exact=True)
    assert [each.path for each in faults(edited.store)] == ["spec.toml"]
    with workerless(), pytest.raises(StudyError, match=r"spec\.toml in .* was altered: `measure\.interpolation` is 3"):
        resume(tmp_path / "edited", notice=silent)


def test_a_worker_refuses_another_plan_than_its_own(spec_with: Callable[..., Spec], tmp_path: Path):
    with workerless():
        run_study(open_study(tmp_path / "study", spec_with()))
    with pytest.raises(StudyError, match=r"plan\.json in .* changed during the study"):
        open_context(str(tmp_path / "study"), "0123", None)
