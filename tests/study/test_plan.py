"""Which runs are trained together, and what an extended study keeps."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lratlas.config.presets import preset
from lratlas.config.sections import Spec
from lratlas.config.spec import spec_from
from lratlas.errors import DamagedFile, SpecError, StudyError
from lratlas.measure.bands import bands_of_job
from lratlas.study.formats import FORMAT, NEEDS
from lratlas.study.jobs import Seed, Training
from lratlas.study.plan import Plan, plan_text, read_plan
from lratlas.study.planning import make_plan

LRS = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
PER_EPOCH = 7
Key = tuple[str, int, float, float | None, float | None, int | None]  # stage, seed, PLR, second PLR, FLR, count


def spec(**sections: Any) -> Spec:
    given = {"task": {"preset": "ticks"}, "pretrain": {"lrs": LRS[:2], "steps": 40}}
    return spec_from(given | sections)


FACTS: dict[str, Any] = {"steps_per_epoch": PER_EPOCH, "chance_loss": 0.69, "chance_accuracy": 0.5, "elr": True}


def planned(wanted: Spec, old: Plan | None = None, *, singles: bool = True) -> Plan:
    seeds = [
        Seed(seed=each, data_seed=1 + each, training_seed=1 + each, fingerprint=f"task {each}")
        for each in range(wanted.pretrain.repeats)
    ]
    return make_plan(wanted, seeds, **FACTS, measured=measured(wanted, {"features": {}} if singles else {}), old=old)


def measured(wanted: Spec, of_task: Mapping[str, Any]) -> dict[str, Any]:
    """The options of what a spec asks for and what the task allows besides."""
    asked = wanted.measure
    options = {
        "geometry": {"great_circle": asked.great_circle},
        "norms": {},
        "sharpness": {"sharpness_samples": asked.sharpness_samples},
    }
    return {**of_task, **{name: each for name, each in options.items() if getattr(asked, name)}}


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    def lrs() -> list[float]:
        return draw(st.lists(st.sampled_from(LRS), min_size=1, max_size=5, unique=True))

    sections: dict[str, Any] = {
        "pretrain": {"lrs": lrs(), "steps": draw(st.integers(30, 90)), "repeats": draw(st.integers(1, 6))},
        "trace": {"points": draw(st.integers(4, 30))},
        "training": {"stack": draw(st.integers(1, 12)), "segment_steps": draw(st.integers(1, 60))},
    }
    if draw(st.booleans()):
        sections["finetune"] = {"lrs": lrs(), "steps": draw(st.integers(1, 50))}
    plrs = sections["pretrain"]["lrs"]
    if draw(st.booleans()) and max(plrs) > LRS[0]:
        first = draw(st.sampled_from([plr for plr in plrs if plr > LRS[0]]))
        lower = st.sampled_from([lr for lr in LRS if lr < first])
        sections["second"] = {
            "plrs": [plr for plr in plrs if plr >= first],
            "lrs": draw(st.lists(lower, min_size=1, max_size=3, unique=True)),
            "steps": draw(st.integers(1, 50)),
        }
    if draw(st.booleans()):
        counts = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3, unique=True))
        sections["average"] = {"counts": counts, "every": draw(st.integers(1, 5)), "extend": draw(st.booleans())}
    return spec(**sections)


def wanted_runs(wanted: Spec) -> list[Key]:
    """What a spec asks for, straight from its words."""
    keys: list[Key] = []
    for seed in range(wanted.pretrain.repeats):
        for plr in wanted.pretrain.lrs:
            below = wanted.second.lrs if wanted.second and plr in wanted.second.plrs else ()
            flrs = wanted.finetune.lrs if wanted.finetune else ()
            keys.append(("pretrain", seed, plr, None, None, None))
            keys += [("second", seed, plr, plr2, None, None) for plr2 in below]
            keys += [("finetune", seed, plr, plr2, flr, None) for plr2 in (None, *below) for flr in flrs]
            keys += [("average", seed, plr, None, None, k) for k in (wanted.average.counts if wanted.average else ())]
    return keys


def planned_runs(plan: Plan) -> dict[str, Key]:
    """Every run that the plan's jobs leave behind, by id; an id that stands twice is an error here."""
    found: list[tuple[str, Key]] = []
    for job in plan.trainings:
        if job.stage != "average":
            found += _keys(job, job.runs, job.stage, None)
        for count, runs in zip(job.average.counts, job.average.runs, strict=True) if job.average else ():
            found += _keys(job, runs, "average", count)
    assert len({run for run, _ in found}) == len(found)
    return dict(found)


def _keys(job: Training, runs: Sequence[Sequence[str]], stage: str, count: int | None) -> list[tuple[str, Key]]:
    return [
        (run, (stage, seed.seed, lane.plr, lane.plr2, lane.flr, count))
        for seed, row in zip(job.seeds, runs, strict=True)
        for lane, run in zip(job.lanes, row, strict=True)
    ]


@given(specs())
def test_every_wanted_run_stands_in_the_plan_exactly_once(wanted: Spec):
    plan = planned(wanted)
    assert Counter(planned_runs(plan).values()) == Counter(wanted_runs(wanted))
    assert plan.holders().keys() == planned_runs(plan).keys()
    names = [job.id for job in (*plan.trainings, *plan.measuring("features"), *plan.measuring("geometry"))]
    assert len(set(names)) == len(names)


@given(specs())
def test_stacks_are_no_larger_than_allowed_and_begin_where_their_parents_end(wanted: Spec):
    plan = planned(wanted)
    runs, done = planned_runs(plan), set[str]()
    for job in plan.trainings:
        assert job.size == len(job.seeds) * len(job.lanes) <= wanted.training.stack
        assert [len(row) for row in job.runs] == [len(job.lanes)] * len(job.seeds)
        assert job.parent is None or job.parent in done
        done.add(job.id)
        for seed, row in zip(job.seeds, job.parents or (), strict=job.parents is not None):
            for lane, parent in zip(job.lanes, row, strict=True):
                above = None if job.stage == "second" else lane.plr2
                stage = "pretrain" if above is None else "second"
                assert runs[parent] == (stage, seed.seed, lane.plr, above, None, None)


@given(specs())
def test_segments_are_whole_trace_intervals_and_end_with_the_run(wanted: Spec):
    for job in planned(wanted).trainings:
        assert job.trace_every == max(1, (wanted.pretrain.steps or 0) // wanted.trace.points)
        assert list(job.segments) == sorted(set(job.segments))
        assert all(end % job.trace_every == 0 for end in job.segments[:-1])
        starts = (job.start // job.trace_every * job.trace_every, *job.segments[:-1])
        longest = max(b - a for a, b in zip(starts, job.segments, strict=True))
        assert longest < wanted.training.segment_steps + job.trace_every
        section = {"finetune": wanted.finetune, "second": wanted.second}.get(job.stage, wanted.pretrain)
        if job.stage == "average":
            assert wanted.average is not None
            assert job.start == wanted.pretrain.steps
            assert job.segments[-1] == job.start + (wanted.average.every or 0) * wanted.average.counts[-1]
        else:
            assert (job.start, job.segments[-1]) == (0, section.steps if section else None)


@given(specs())
def test_checkpoints_to_average_lie_at_equal_distances_up_to_the_end(wanted: Spec):
    for job in planned(wanted).trainings:
        if job.average and wanted.average:
            every, count = wanted.average.every or 0, wanted.average.counts[-1]
            assert job.average.steps == tuple(job.segments[-1] - every * back for back in reversed(range(count)))
            assert job.average.counts == wanted.average.counts


@given(specs())
def test_planning_again_from_its_own_plan_changes_nothing(wanted: Spec):
    plan = planned(wanted)
    assert planned(wanted, plan) == plan
    assert read_plan(plan_text(plan), where="plan.json", how=str) == plan


@settings(max_examples=60)
@given(specs(), st.data())
def test_an_extended_study_keeps_its_jobs_and_adds_only_what_is_missing(small: Spec, data: st.DataObject):
    more = st.lists(st.sampled_from(LRS), unique=True)
    changes: dict[str, Any] = {
        "pretrain": {
            "lrs": sorted({*small.pretrain.lrs, *data.draw(more)}),
            "repeats": small.pretrain.repeats + data.draw(st.integers(0, 3)),
        }
    }
    if small.finetune:
        changes["finetune"] = {"lrs": sorted({*small.finetune.lrs, *data.draw(more)})}
    values = small.model_dump(exclude_none=True)
    large = spec_from(values | {name: values[name] | change for name, change in changes.items()})
    old = planned(small)
    new = planned(large, old)
    kept = {job.id: job for job in new.trainings}
    assert all(kept[job.id] == job for job in old.trainings)
    assert Counter(planned_runs(new).values()) == Counter(wanted_runs(large))
    # What stands in neither plan's way has the id that it would have in its own study.
    fresh = planned(large)
    assert planned_runs(new) == planned_runs(fresh)


def test_ids_follow_whatever_defines_a_run():
    def ids(**changes: Any) -> set[str]:
        pretrain = {"lrs": LRS[:1], "steps": 40} | changes.pop("pretrain", {})
        return set(planned_runs(planned(spec(pretrain=pretrain, **changes))))

    sets = [
        ids(),
        ids(pretrain={"lrs": LRS[1:2]}),
        ids(pretrain={"steps": 41}),
        ids(training={"dtype": "float64"}),
    ]
    assert len(set.union(*sets)) == 4
    assert ids() == ids(training={"stack": 1, "segment_steps": 3}, trace={"points": 20}) == sets[0]


def test_lengths_in_epochs_are_counted_in_full_batches():
    sections: dict[str, Any] = {
        "pretrain": {"lrs": LRS[:1], "epochs": 6},
        "finetune": {"lrs": LRS[:1], "epochs": 2},
        "average": {"counts": [3]},
    }
    pretrain, finetune = planned(spec(**sections)).trainings
    assert (pretrain.segments[-1], finetune.segments[-1]) == (6 * PER_EPOCH, 2 * PER_EPOCH)
    assert pretrain.average is not None
    assert pretrain.average.steps == (4 * PER_EPOCH, 5 * PER_EPOCH, 6 * PER_EPOCH)


def test_averages_of_the_vit_are_of_every_second_epoch_from_482_to_500():
    average = preset("cifar10-vit").average
    assert average is not None
    sections = {"pretrain": {"lrs": LRS[:1], "epochs": 500}, "average": average.model_dump(exclude_none=True)}
    (job,) = planned(spec(**sections)).trainings
    assert job.average is not None
    assert job.average.steps == tuple(epoch * PER_EPOCH for epoch in range(482, 501, 2))
    (apart,) = planned(spec(average={"counts": [3], "every_epochs": 2})).trainings
    assert apart.average is not None
    assert apart.average.steps == (40 - 4 * PER_EPOCH, 40 - 2 * PER_EPOCH, 40)


def test_averages_that_do_not_fit_say_how_many_do():
    average = {"counts": [2, 7]}
    with pytest.raises(
        SpecError, match=rf"SWA-7 needs 7 checkpoints, {PER_EPOCH} steps apart.* at most 6 checkpoints fit"
    ):
        planned(spec(average=average))
    (job,) = planned(spec(average={"counts": [2, 6]})).trainings
    assert job.average is not None
    assert job.average.steps[0] == 40 - 5 * PER_EPOCH
    assert planned(spec(average=average | {"extend": True})).trainings[1].segments[-1] == 40 + 7 * PER_EPOCH


def test_geometry_compares_the_lowest_flr_the_highest_and_the_average_nearest_to_five():
    flrs = LRS[1:4]
    plan = planned(
        spec(finetune={"lrs": flrs, "steps": 5}, average={"counts": [2, 4, 20], "every": 1}, training={"stack": 2})
    )
    runs = planned_runs(plan)
    (geometry,) = plan.measuring("geometry")
    wanted = {
        "low": ("finetune", flrs[0], None),
        "high": ("finetune", flrs[-1], None),
        "swa": ("average", None, 4),
    }
    assert geometry.solutions.keys() == wanted.keys()
    for role, solved in geometry.solutions.items():
        found, key = [runs[run] for row in solved for run in row], wanted[role]
        assert [(stage, flr, count) for stage, _, _, _, flr, count in found] == [key] * 2
        assert [plr for _, _, plr, *_ in found] == LRS[:2]


def test_only_what_is_asked_for_is_measured():
    finetune = {"lrs": LRS[:2], "steps": 5}
    assert planned(spec(finetune=finetune, measure={"geometry": False})).measuring("geometry") == ()
    assert planned(spec(), singles=False).measuring("features") == ()
    assert planned(spec(finetune={"lrs": LRS[:1], "steps": 5})).measuring("geometry") == ()
    plan = planned(spec(finetune=finetune))
    assert [job.training for job in plan.measuring("features")] == [job.id for job in plan.trainings]
    assert len(plan.measuring("geometry")) == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", "not JSON", '{"format": 1, "strategy": "stack"}'])
def test_a_text_that_is_no_plan_is_damage(text: str):
    with pytest.raises(
        DamagedFile, match=r"plan\.json was altered or cut short; to move it to damaged/ .*, do this\.$"
    ):
        read_plan(text, where="plan.json", how=lambda: "do this")


def test_a_plan_that_was_altered_or_is_of_a_later_format_is_refused():
    text = plan_text(planned(spec()))
    for damaged in (text[: math.floor(len(text) * 0.9)], text.replace('"plr":0.0001', '"plr":0.0002')):
        with pytest.raises(DamagedFile, match="altered or cut short"):
            read_plan(damaged, where="plan.json", how=str)
    later = text.replace(f'"format":{FORMAT}', f'"format":{FORMAT + 1}')
    with pytest.raises(
        StudyError, match=rf"plan\.json has format {FORMAT + 1}, which needs lratlas {NEEDS} or later; lratlas"
    ):
        read_plan(later, where="plan.json", how=str)


BAND_JOBS = {"finetune": {"lrs": LRS[:2], "steps": 5}, "average": {"counts": [2, 4], "every": 1, "extend": True}}
Band = tuple[int, int]


def planned_bands(wanted: Spec, bands: Sequence[Band], old: Plan | None = None, **changes: Any) -> Plan:
    seeds = [Seed(seed=0, training_seed=1, fingerprint="task")]
    facts: dict[str, Any] = {
        "steps_per_epoch": PER_EPOCH,
        "chance_loss": 0.69,
        "chance_accuracy": 0.5,
        "elr": True,
        "measured": measured(wanted, {"bands": {"bands": tuple(bands)}}),
    }
    return make_plan(wanted, seeds, **(facts | changes), old=old)


@given(specs())
def test_single_plans_one_run_per_job_whatever_the_stack(wanted: Spec):
    seeds = [Seed(seed=each, training_seed=each, fingerprint="task") for each in range(wanted.pretrain.repeats)]
    facts: dict[str, Any] = {
        "steps_per_epoch": PER_EPOCH,
        "chance_loss": 0.69,
        "chance_accuracy": 0.5,
        "elr": True,
        "measured": measured(wanted, {"features": {}}),
    }
    single = make_plan(wanted, seeds, strategy="single", **facts)
    stacked = make_plan(wanted, seeds, strategy="stack", **facts)
    assert {job.size for job in single.trainings} == {1}
    assert (single.strategy, stacked.strategy) == ("single", "stack")
    # The same runs by the same names: only how they are put together differs.
    assert planned_runs(single) == planned_runs(stacked)


def test_bands_are_measured_once_for_every_training_job():
    bands = [(0, 0), (1, 4)]
    plan = planned_bands(spec(**BAND_JOBS), bands)
    assert [job.training for job in plan.measuring("bands")] == [job.id for job in plan.trainings]
    assert all(job.options == {"bands": tuple(bands)} for job in plan.measuring("bands"))
    assert len({job.id for job in plan.jobs}) == len(plan.jobs)
    assert planned_bands(spec(**BAND_JOBS), []).measuring("bands") == ()


def test_more_bands_and_more_runs_add_measurements_for_what_is_missing_alone():
    old = planned_bands(spec(**BAND_JOBS), [(0, 0), (1, 4)])
    more = planned_bands(spec(**BAND_JOBS), [(0, 0), (1, 2), (1, 4)], old)
    known = old.measuring("bands")
    assert more.measuring("bands")[: len(known)] == known
    assert [bands_of_job(job) for job in more.measuring("bands")[len(known) :]] == [((1, 2),)] * len(old.trainings)
    assert planned_bands(spec(**BAND_JOBS), [(0, 0), (1, 2), (1, 4)], more) == more
    larger = planned_bands(spec(pretrain={"lrs": LRS[:3], "steps": 40}, **BAND_JOBS), [(0, 0), (1, 4)], old)
    new = {job.id for job in larger.trainings} - {job.id for job in old.trainings}
    assert {job.training for job in larger.measuring("bands")[len(known) :]} == new != set()
    measured = [(job.training, band) for job in larger.measuring("bands") for band in bands_of_job(job)]
    assert Counter(measured) == Counter((job.id, band) for job in larger.trainings for band in [(0, 0), (1, 4)])


def test_a_plan_from_before_there_were_bands_is_still_read():
    plan = planned(spec())
    content = json.loads(plan_text(plan)) | {"format": 1}
    for later in ("checksum", "measurements", "task", "pre_norm", "needs", "made_with", "spec"):
        content.pop(later)
    content["features"] = [{"id": job.id, "training": job.training} for job in plan.measuring("features")]
    content["geometry"] = []
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    read = read_plan(json.dumps({"checksum": checksum, **content}), where="plan.json", how=str)
    assert read.format == 1
    assert (read.jobs, read.task) == (plan.jobs, "")
