import math
from itertools import pairwise

import pytest

from lratlas.errors import SpecError
from lratlas.study.presets import PRESETS, demo_presets, preset
from lratlas.study.spec import extends


def test_ticks_has_the_paper_s_grid():
    spec = preset("ticks")
    lrs = spec.pretrain.lrs
    steps = [round(8 * math.log10(high / low), 6) for low, high in pairwise(lrs)]
    # In eighths of a decade: 9 steps of a quarter decade, 8 of an eighth, 5 of a quarter.
    assert steps == [2] * 9 + [1] * 8 + [2] * 5
    assert (lrs[0], lrs[-1], len(lrs)) == (10**-4.5, 1.0, 23)
    assert spec.finetune is not None
    assert spec.finetune.lrs == lrs[:11]
    assert (spec.pretrain.steps, spec.finetune.steps, spec.task.batch_size) == (40_000, 20_000, 16)
    assert spec.average is not None
    assert (spec.average.counts, spec.average.every, spec.average.extend) == ((2, 5, 10, 20, 50), 100, False)


def test_digits_has_thirteen_plrs_over_four_decades():
    spec = preset("digits")
    assert len(spec.pretrain.lrs) == 13
    assert (spec.pretrain.lrs[0], spec.pretrain.lrs[-1]) == (1e-4, 1.0)
    assert spec.finetune is not None
    assert len(spec.finetune.lrs) == 3


@pytest.mark.parametrize("name", PRESETS)
def test_repeats_replaces_the_preset_s_own_number_alone(name: str):
    assert preset(name, repeats=7).pretrain.repeats == 7
    assert extends(preset(name, repeats=1), preset(name, repeats=7)) is None


def test_the_demo_is_a_part_of_the_full_studies():
    demo = demo_presets()
    assert set(demo) == {"ticks", "digits"}
    for name, spec in demo.items():
        assert extends(spec, preset(name)) is None
    assert demo["ticks"].finetune is not None
    assert demo["ticks"].finetune.lrs == (10**-4.5, 10**-3, 10**-2.125)


def test_an_unknown_preset_names_the_close_and_all_allowed_ones():
    with pytest.raises(SpecError, match=r"^There is no preset 'tick' \(did you mean ticks\?\); allowed are ticks, "):
        preset("tick")


@pytest.mark.parametrize("repeats", [0, -3])
def test_repeats_below_one_are_refused(repeats: int):
    with pytest.raises(SpecError, match=f"cannot have {repeats} repeats; repeats must be at least 1"):
        preset("ticks", repeats=repeats)
