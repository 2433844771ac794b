import inspect
import math
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lratlas.config import values
from lratlas.config.rules import RULES, Adam
from lratlas.config.sections import AverageSpec, FinetuneSpec, Spec
from lratlas.config.spec import extends, read_spec, spec_from, spec_text
from lratlas.errors import SpecError
from lratlas.training import objective, rules

LR = st.floats(min_value=1e-12, max_value=1e6)
LRS = st.lists(LR, min_size=1, max_size=6, unique=True)
LENGTH = st.tuples(st.sampled_from(["steps", "epochs"]), st.integers(1, 10**6)).map(lambda pair: dict([pair]))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUE = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
DECAY = st.floats(0, 10)
RULE = st.one_of(
    st.fixed_dictionaries({"name": st.just("sgd")}, optional={"weight_decay": DECAY, "momentum": st.floats(0, 0.99)}),
    st.fixed_dictionaries({"name": st.sampled_from(["adam", "adamw"])}, optional={"weight_decay": DECAY}),
    st.fixed_dictionaries(
        {"name": st.sampled_from(["sphere_sgd", "sphere_rsgd"])}, optional={"radius": LR, "other_lr": st.just(0.0) | LR}
    ),
    st.just({"name": "my.optimizers:lion"}),
)
BANDS = st.booleans() | st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted), min_size=1, max_size=5)
TASK = st.one_of(
    st.fixed_dictionaries(
        {"preset": TEXT.filter(bool)},
        optional={
            "options": st.dictionaries(TEXT, VALUE, max_size=3),
            "rule": RULE,
            "loss": st.just("mse"),
            "batch_size": st.just("full") | st.integers(1, 10**6),
        },
    ),
    st.just({"model": "my.module:make", "data": "my_module:load", "loss": "my.losses:huber", "batch_size": 3}),
)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    values: dict[str, Any] = {
        "name": draw(TEXT.filter(bool)),
        "task": draw(TASK),
        "pretrain": {"lrs": draw(LRS), "repeats": draw(st.integers(1, 50)), **draw(LENGTH)},
        "measure": {"bands": draw(BANDS)},
        "training": {
            "dtype": draw(st.sampled_from(["float32", "float64"])),
            "compile": draw(st.booleans()),
            "mixed_precision": draw(st.booleans()),
            "strategy": draw(st.sampled_from(["auto", "stack", "single"])),
        },
    }
    if draw(st.booleans()):
        values["finetune"] = {"lrs": draw(LRS), **draw(LENGTH)}
    if draw(st.booleans()):
        counts = draw(st.lists(st.integers(1, 100), min_size=1, max_size=4, unique=True))
        values["average"] = {"counts": counts, "extend": True}
    return spec_from(values)


def fields(**changes: object) -> dict[str, Any]:
    """A small correct spec with some fields replaced, each named ``section__field``."""
    values: dict[str, Any] = {"task": {"preset": "digits"}, "pretrain": {"lrs": [0.1, 0.01], "steps": 1000}}
    for name, value in changes.items():
        *section, field = name.split("__")
        target = values
        for part in section:
            target = target.setdefault(part, {})
        target[field] = value
    return values


@given(specs())
def test_a_written_spec_reads_back_equal(spec: Spec):
    assert spec_from(tomllib.loads(spec_text(spec))) == spec


@given(specs())
def test_every_spec_extends_itself(spec: Spec):
    assert extends(spec, spec) is None


def test_lrs_are_sorted_and_ranges_become_lists():
    assert spec_from(fields(pretrain__lrs=[1, 0.01, 0.1])).pretrain.lrs == (0.01, 0.1, 1.0)
    grid = {"low": 1e-3, "high": 1e-1, "per_decade": 1}
    assert spec_from(fields(pretrain__lrs=grid)).pretrain.lrs == (1e-3, 1e-2, 1e-1)


def test_a_rule_has_its_own_settings_alone_and_the_usual_defaults():
    adamw = spec_from(fields(task__rule={"name": "adamw"})).task.rule
    sphere = spec_from(fields(task__rule={"name": "sphere_sgd"})).task.rule
    assert adamw is not None
    assert sphere is not None
    assert adamw.settings == {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
    assert sphere.settings == {"radius": 1.0}


FAULTS: list[tuple[dict[str, object], str]] = [
    ({"pretrain__repeats": 0}, "`pretrain.repeats` is 0, but must be greater than or equal to 1."),
    ({"pretrain__repeats": True}, "`pretrain.repeats` is true, but must be a valid integer."),
    ({"pretrain__lrs": [0.1, 0.1]}, "`pretrain.lrs` holds 0.1 twice, but LRs must be different."),
    (
        {"pretrain__lrs": [0.1, -0.1]},
        "`pretrain.lrs` holds -0.1, but every LR must be a positive finite number.",
    ),
    (
        {"pretrain__lrs": [math.nan]},
        "`pretrain.lrs` holds nan, but every LR must be a positive finite number.",
    ),
    ({"pretrain__lrs": []}, "`pretrain.lrs` is empty, but must hold at least one LR."),
    (
        {"pretrain__lrs": "all"},
        "`pretrain.lrs` is 'all', but must be a list of positive numbers or a range {low, high, per_decade}.",
    ),
    (
        {"pretrain__lrs": {"low": 1, "high": 2}},
        "`pretrain.lrs` is a range with low, high, but a range has exactly low, high, per_decade.",
    ),
    (
        {"pretrain__lrs": {"low": -1, "high": 2, "per_decade": 3}},
        "`pretrain.lrs` has low = -1, but low must be a positive finite number.",
    ),
    ({"pretrain__epochs": 2}, "`pretrain` must have exactly one of `steps` and `epochs`, but has both."),
    (
        {"pretrain": {"lrs": [1]}},
        "`pretrain` must have exactly one of `steps` and `epochs`, but has neither.",
    ),
    (
        {"pretrain__repeets": 2},
        "`pretrain.repeets` is not a field (did you mean `repeats`?); "
        "allowed in [pretrain] are lrs, steps, epochs, repeats.",
    ),
    (
        {"pretrain": {"lr": [1], "steps": 2}},
        "`pretrain.lr` is not a field (did you mean `lrs`?); allowed in [pretrain] are lrs, steps, epochs, repeats.",
    ),
    (
        {"finetune": {"steps": 3, "epochs": 4, "lr": [1]}, "trace__points": 1},
        "`finetune.lr` is not a field (did you mean `lrs`?); allowed in [finetune] are lrs, steps, epochs"
        " (and 1 more field is invalid).",
    ),
    (
        {"averages": {"counts": [2]}},
        "There is no section `averages` (did you mean `average`?); allowed are "
        "name, task, pretrain, second, finetune, average, refine, trace, measure, regimes, training.",
    ),
    (
        {"regimes": {"falls": 0.1}},
        "`regimes` has 'falls' (did you mean fall?), but the thresholds are "
        "chance_level, chance_trace, chance_margin, small_loss, fitted_accuracy, trend_level, fall, unmoved, barrier, "
        "spread.",
    ),
    (
        {"pretrain__lrs": [1e-3, 1e-39]},
        "`pretrain.lrs` holds 1e-39, but every LR must be from 1.18e-38 to 3.4e+38, the range of float32.",
    ),
    (
        {"pretrain__lrs": {"low": 1, "high": 1e39, "per_decade": 1}},
        "`pretrain.lrs` has high = 1e+39, but high must be from 1.18e-38 to 3.4e+38, the range of float32.",
    ),
    ({"pretrain__lrs": [True]}, "`pretrain.lrs` holds true, but every LR must be a positive finite number."),
    ({"pretrain__repeats": True}, "`pretrain.repeats` is true, but must be a valid integer."),
    (
        {"task__rule": {"name": "sphere_sgd", "other_lr": 1e-300}},
        "`task.rule.other_lr` is 1e-300, but must be 0 or from 1.18e-38 to 3.4e+38, the range of float32.",
    ),
    (
        {"zzz": 2},
        "`zzz` is not a field; allowed are "
        "name, task, pretrain, second, finetune, average, refine, trace, measure, regimes, training.",
    ),
    (
        {"task__rule": {"name": "sphere_sgd", "momentum": 0.9}},
        "`task.rule.momentum` is not a field; allowed in [task.rule] are name, radius, other_lr.",
    ),
    (
        {"task__rule": {"name": "sgdd"}},
        "`task.rule.name` is 'sgdd', but must be sgd, adam, adamw, sphere_sgd, sphere_rsgd or \"module:function\".",
    ),
    (
        {"task__rule": {"name": "sgd", "nesterov": True}},
        "`task.rule` has nesterov = true without momentum, but Nesterov needs a momentum above 0.",
    ),
    (
        {"task__rule": {"name": "adam", "betas": [0.9]}},
        "`task.rule.betas` is [0.9], but must be a list of two numbers of at least 0 and below 1.",
    ),
    ({"task__model": "a:b"}, "`task` must have exactly one of `preset` and `model`, but has both."),
    ({"task": {"model": "a:b"}}, "`task` has `model` without `data`, but a custom model needs both."),
    (
        {"task": {"model": "a.b", "data": "a:b"}},
        "`task.model` is 'a.b', but must be written \"module:function\".",
    ),
    ({"task": "digits"}, "`task` is 'digits', but must be a table."),
    (
        {"average": {"counts": [2, 2]}},
        "`average.counts` is [2, 2], but must be a list of different whole numbers of at least 1.",
    ),
    (
        {"average": {"counts": [2], "every": 100, "every_epochs": 1}},
        "`average` has both `every` and `every_epochs`, but only one of them can be set.",
    ),
    (
        {"pretrain": {"lrs": [0.1], "epochs": 6}, "average": {"counts": [4], "every_epochs": 2}},
        "The spec has average.counts up to 4, but pre-training has only 3 such checkpoints.",
    ),
    (
        {"average": {"counts": [12], "every": 100}},
        "The spec has average.counts up to 12, but pre-training has only 10 such checkpoints.",
    ),
    (
        {"task__rule": {"name": "own:lion", "weight_decay": 0.1}},
        "`task.rule.weight_decay` is not a field; allowed in [task.rule] are name.",
    ),
    (
        {"task__rule": {"name": "sphere_sgd", "other_lr": -0.1}},
        "`task.rule.other_lr` is -0.1, but must be greater than or equal to 0.",
    ),
    (
        {"task__batch_size": "half"},
        "`task.batch_size` is 'half', but must be a whole number of at least 1 or \"full\".",
    ),
    ({"task__batch_size": 0}, '`task.batch_size` is 0, but must be a whole number of at least 1 or "full".'),
    ({"task__batch_size": True}, '`task.batch_size` is true, but must be a whole number of at least 1 or "full".'),
    (
        {"training__strategy": "alone"},
        "`training.strategy` is 'alone', but must be 'auto', 'stack' or 'single'.",
    ),
    ({"training__mixed_precision": "yes"}, "`training.mixed_precision` is 'yes', but must be a valid boolean."),
    *(
        (
            {"measure__bands": bands},
            f"`measure.bands` is {bands!r}, but must be true, false or a list of bands [low, high] of whole numbers "
            "with 0 <= low <= high.",
        )
        for bands in ([], [[2, 1]], [[-1, 2]], [[1, 2, 3]], [[0.5, 2]], [1, 2], "all", [[True, 2]])
    ),
    ({"training__device": "gpu"}, "`training.device` is 'gpu', but must be auto, cpu, cuda, cuda:N or mps."),
    (
        {"task__options": {"when": tomllib.loads("x = 2024-01-01")["x"]}},
        "`task.options` holds datetime.date(2024, 1, 1), but can hold only text, finite numbers, booleans, lists and"
        " tables.",
    ),
    (
        {"training__stack": 0, "trace__points": -1, "measure__interpolation": 2},
        "`trace.points` is -1, but must be greater than or equal to 4 (and 2 more fields are invalid).",
    ),
]


@pytest.mark.parametrize(("changes", "message"), FAULTS)
def test_a_faulty_field_is_named_with_its_value_and_what_is_allowed(changes: dict[str, object], message: str):
    with pytest.raises(SpecError) as caught:
        spec_from(fields(**changes))
    assert str(caught.value) == message


def test_a_misspelt_section_explains_what_is_missing():
    with pytest.raises(SpecError, match=r"^There is no section `pretrian` \(did you mean `pretrain`\?\); [^(]*\.$"):
        spec_from({"task": {"preset": "digits"}, "pretrian": {"lrs": [1], "steps": 2}})


def test_numbers_of_other_libraries_are_read_as_pythons():
    read = fields(
        pretrain={"lrs": np.geomspace(0.01, 1, 3), "epochs": np.int64(3), "repeats": torch.tensor(2)},
        finetune={"lrs": torch.tensor([0.5, 0.25]), "epochs": np.array(2)},
        average={"counts": np.array([2, 1])},
        measure={"bands": np.array([[0, 2], [3, 4]])},
        regimes={"fall": np.float32(0.5)},
        task={"preset": "digits", "rule": {"name": "adam", "betas": np.array([0.5, 0.75]), "eps": torch.tensor(0.5)}},
    )
    spec = spec_from(read)
    assert spec.pretrain.lrs == pytest.approx((0.01, 0.1, 1.0))
    assert (spec.pretrain.epochs, spec.pretrain.repeats) == (3, 2)
    assert spec.finetune == FinetuneSpec(lrs=(0.25, 0.5), epochs=2)
    assert spec.average == AverageSpec(counts=(1, 2))
    assert spec.measure.bands == ((0, 2), (3, 4))
    assert spec.regimes == {"fall": 0.5}
    assert spec.task.rule == Adam(name="adam", betas=(0.5, 0.75), eps=0.5)
    assert spec_from(tomllib.loads(spec_text(spec))) == spec


def test_lrs_may_come_from_any_iterable():
    spec = spec_from(fields(pretrain={"lrs": (10.0**-power for power in range(3)), "epochs": 1}))
    assert spec.pretrain.lrs == (0.01, 0.1, 1.0)


def test_a_missing_field_is_named():
    with pytest.raises(SpecError, match=r"^`pretrain` is missing: the first stage"):
        spec_from({"task": {"preset": "digits"}})


def test_a_spec_is_read_from_its_file(tmp_path: Path):
    path = tmp_path / "spec.toml"
    path.write_text(spec_text(spec_from(fields())))
    assert read_spec(path) == read_spec(str(path)) == spec_from(fields())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\xff\xfe\x00\x01", "is not UTF-8 text"),
        (b"a = 1\0", "is a binary file"),
        (b"[task]\npreset 3\n", r"is not valid TOML: .*line 2, column 8"),
        (b"a = " + b"[" * 50_000, "is not valid TOML"),
        (b"a = " + b"9" * 5_000, "is not valid TOML"),
        (b"[task]\npreset = 'x'\n", "`pretrain` is missing"),
    ],
)
def test_an_unreadable_file_is_named_in_one_sentence(tmp_path: Path, content: bytes, why: str):
    path = tmp_path / "faulty.toml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=why) as caught:
        read_spec(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path):
    with pytest.raises(SpecError, match=r"There is no spec .*absent\.toml"):
        read_spec(tmp_path / "absent.toml")
    with pytest.raises(SpecError, match="is a folder"):
        read_spec(tmp_path)


STAGES = {"finetune": {"lrs": [0.01], "steps": 10}, "average": {"counts": [2], "every": 5}}


@pytest.mark.parametrize(
    "changes",
    [
        {"pretrain__lrs": [0.1, 0.01, 0.5]},
        {"pretrain__repeats": 3},
        {"finetune__lrs": [0.01, 0.02]},
    ],
)
def test_a_spec_that_adds_extends_but_not_the_other_way_round(changes: dict[str, Any]):
    small, large = (
        spec_from(fields(**fields_of_stages())),
        spec_from(fields(**{**fields_of_stages(), **changes})),
    )
    assert extends(small, large) is None
    reason = extends(large, small)
    assert reason is not None
    assert next(iter(changes)).replace("__", ".") in reason


def fields_of_stages() -> dict[str, object]:
    return {f"{stage}__{field}": value for stage, values in STAGES.items() for field, value in values.items()}


def test_stages_and_measurements_may_be_added_but_not_left_out():
    average = {f"average__{field}": value for field, value in STAGES["average"].items()}
    bare = spec_from(fields(measure__geometry=False, **average))
    full = spec_from(fields(**fields_of_stages()))
    assert extends(bare, full) is None
    assert "[finetune]" in (extends(full, bare) or "")
    assert "measure.geometry" in (extends(spec_from(fields(**average)), bare) or "")


def test_averages_are_taken_during_training_and_cannot_be_added_later():
    with_averages = spec_from(fields(**fields_of_stages()))
    more = spec_from(fields(**{**fields_of_stages(), "average__counts": [2, 3]}))
    none = spec_from(fields(**{name: value for name, value in fields_of_stages().items() if "average" not in name}))
    assert "[average]" in (extends(none, with_averages) or "")
    assert "average.counts" in (extends(with_averages, more) or "")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"task__batch_size": 2},
        {"task__rule": {"name": "sgd"}},
        {"pretrain__steps": 2000},
        {"trace__points": 50},
        {"training__dtype": "float64"},
    ],
)
def test_any_other_change_is_named(changes: dict[str, Any]):
    reason = extends(spec_from(fields()), spec_from(fields(**changes)))
    assert reason is not None
    assert next(iter(changes)).replace("__", ".") in reason


def test_reading_specs_imports_nothing_heavy():
    code = "import lratlas.config.presets, sys; print({'torch', 'polars', 'numpy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert result.stdout.strip() == "set()"


def test_bands_are_sorted_and_each_stands_once():
    assert spec_from(fields(measure__bands=[[3, 5], [0, 0], [3, 5], [1, 9]])).measure.bands == ((0, 0), (1, 9), (3, 5))
    assert spec_from(fields()).measure.bands is True


def test_bands_may_start_and_gain_but_not_lose():
    none, some, more, usual = (
        spec_from(fields(measure__bands=bands)) for bands in (False, [[0, 2]], [[0, 2], [3, 5]], True)
    )
    for small, large in ((none, some), (none, usual), (some, more), (some, usual)):
        assert extends(small, large) is None
    for small, large in ((some, none), (usual, none), (more, some)):
        assert "`measure.bands`" in (extends(small, large) or "")
    assert extends(more, some) == (
        "`measure.bands` holds (3, 5) in the study, but not in the new spec; values can only be added."
    )


def test_a_name_that_cannot_be_printed_is_named_as_in_toml():
    with pytest.raises(SpecError, match=r'^`task\."a\\nb"` is not a field; allowed in \[task\] are '):
        spec_from({"task": {"preset": "digits", "a\nb": 1}, "pretrain": {"lrs": [0.1], "steps": 1}})


def test_a_spec_can_ask_for_every_rule_and_loss_with_all_settings_and_their_defaults() -> None:
    assert {*RULES} - {values.OWN} == set(rules.RULES)
    assert set(values.LOSSES) == {*objective.LOSSES, objective.MODEL}
    for name, rule in rules.RULES.items():
        settings = dict(inspect.signature(rule).parameters)
        settings.pop("free", None)  # found by looking at the model
        asked = RULES[name].model_validate({"name": name})
        assert {*type(asked).model_fields} - {"name"} == set(settings)
        for field, setting in settings.items():
            assert getattr(asked, field) == setting.default
