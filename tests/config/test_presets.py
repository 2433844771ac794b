import math
import tomllib
from itertools import pairwise
from typing import Any, cast

import pytest

from lratlas.config.preset_names import PRESETS
from lratlas.config.presets import demo_presets, preset
from lratlas.config.rules import Adam
from lratlas.config.spec import extends, spec_from, spec_text
from lratlas.errors import SpecError


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
def test_every_study_has_the_name_of_its_file_and_a_description(name: str):
    assert preset(name).name == name
    assert PRESETS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_repeats_replaces_the_preset_s_own_number_alone(name: str):
    assert preset(name, repeats=7).pretrain.repeats == 7
    assert extends(preset(name, repeats=1), preset(name, repeats=7)) is None


def test_the_demo_is_a_part_of_the_full_studies():
    demo = demo_presets()
    assert set(demo) == {"ticks", "digits"}
    for spec in demo.values():
        assert extends(spec, preset(spec.name)) is None
        assert spec.pretrain.repeats == 3
    assert demo["ticks"].finetune is not None
    assert demo["ticks"].finetune.lrs == (10**-4.5, 10**-3, 10**-2.125)


def test_an_unknown_preset_names_the_close_and_all_allowed_ones():
    with pytest.raises(SpecError, match=r"^There is no preset 'tick' \(did you mean ticks\?\); allowed are .*ticks, "):
        preset("tick")


@pytest.mark.parametrize("repeats", [0, -3])
def test_repeats_below_one_are_refused(repeats: int):
    with pytest.raises(SpecError, match=f"cannot have {repeats} repeats; repeats must be from 1"):
        preset("ticks", repeats=repeats)


IMAGES = [name for name in PRESETS if preset(name).task.preset == "images"]
TUNED = [name for name in IMAGES if preset(name).finetune]
# The table of set-ups: data, model, width, radius, steps of a decade, highest PLR, FLRs.
THREE, SIX = (1, 2, 5), (1, 1.4, 2, 3, 5, 7)
PAPER: dict[str, tuple[str, str, int, float, tuple[float, ...], float, tuple[float, float]]] = {
    "cifar10-convnet": ("cifar10", "convnet", 32, 12.0, THREE, 0.5, (1e-5, 5e-4)),
    "cifar10-resnet": ("cifar10", "resnet18", 32, 28.0, SIX, 0.1, (1e-5, 3e-4)),
    "cifar100-convnet": ("cifar100", "convnet", 128, 12.0, THREE, 0.5, (1e-5, 2e-4)),
    "cifar100-resnet": ("cifar100", "resnet18", 32, 28.0, SIX, 0.1, (2e-5, 1e-4)),
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_reads_back_equal(name: str):
    spec = preset(name)
    assert spec_from(tomllib.loads(spec_text(spec))) == spec
    assert spec.name == name


@pytest.mark.parametrize("name", PAPER)
def test_a_row_of_the_paper_s_set_ups_is_what_the_paper_says(name: str):
    data, model, width, radius, steps, high, flrs = PAPER[name]
    spec = preset(name)
    grid = [step * 10.0**exponent for exponent in range(-5, 0) for step in steps]
    assert spec.pretrain.lrs == pytest.approx([lr for lr in grid if lr <= high * 1.001])
    assert (spec.pretrain.lrs[0], spec.pretrain.lrs[-1]) == (1e-5, high)
    assert spec.task.options == {"data": data, "model": model, "width": width, "scale_invariant": True}
    assert spec.task.rule is not None
    assert (spec.task.rule.name, spec.task.rule.settings) == ("sphere_sgd", {"radius": radius})
    assert spec.finetune is not None
    assert spec.average is not None
    assert (spec.pretrain.epochs, spec.finetune.epochs, spec.task.batch_size) == (200, 200, 128)
    assert spec.finetune.lrs == flrs
    assert (spec.average.counts, spec.average.every, spec.average.extend) == ((2, 5, 10, 50, 100), None, True)


def test_fashion_has_quarter_decades_and_eighths_about_the_threshold():
    spec = preset("fashion-convnet")
    steps = [round(8 * math.log10(high / low), 6) for low, high in pairwise(spec.pretrain.lrs)]
    # 1e-4 to 1e-3 in quarters, to 10^-1.75 (below 2e-2) in eighths, then quarters up to 10^-1.25 (below 6e-2).
    assert steps == [2] * 4 + [1] * 10 + [2] * 2
    assert (spec.pretrain.lrs[0], spec.pretrain.lrs[-1]) == (1e-4, 10**-1.25)
    assert spec.finetune is not None
    assert spec.average is not None
    assert (spec.pretrain.epochs, spec.finetune.epochs, spec.finetune.lrs) == (50, 12, (1e-4, 5e-4, 2e-3))
    assert spec.average.counts[-1] == 20
    assert (spec.task.options["images"], spec.task.options["width"]) == (8192, 8)


@pytest.mark.parametrize("name", TUNED)
@pytest.mark.parametrize("scale", [1.0, 0.5, 0.1, 1e-6])
def test_scale_shrinks_width_images_and_epochs(name: str, scale: float):
    whole, small = preset(name), preset(name, scale=scale, images=None if scale > 1e-3 else 10)
    all_images = {"cifar10": 50_000, "cifar100": 50_000, "tiny-imagenet": 100_000}
    heads = int(str(whole.task.options.get("heads", 1)))
    share = scale * int(str(whole.task.options["width"]))
    assert abs(int(str(small.task.options["width"])) - max(heads, share)) <= heads / 2
    assert int(str(small.task.options["width"])) % heads == 0
    if scale < 1:
        images = (
            10
            if scale < 1e-3
            else round(
                scale * int(str(whole.task.options.get("images") or all_images[str(whole.task.options["data"])]))
            )
        )
        assert small.task.options["images"] == images
    assert small.finetune is not None
    assert whole.finetune is not None
    for one, other in ((small.pretrain, whole.pretrain), (small.finetune, whole.finetune)):
        assert one.epochs == max(1, round(scale * (other.epochs or 0)))
        assert one.lrs == other.lrs


def test_sizes_that_are_named_win_over_the_scale():
    spec = preset(
        "cifar10-resnet", scale=0.5, width=4, images=60, test_images=30, epochs=7, finetune_epochs=3, lrs=[0.1, 1e-3]
    )
    options = {"data": "cifar10", "model": "resnet18", "width": 4, "scale_invariant": True}
    assert spec.task.options == options | {"images": 60, "test_images": 30}
    assert spec.finetune is not None
    assert (spec.pretrain.epochs, spec.finetune.epochs, spec.pretrain.lrs) == (7, 3, (1e-3, 0.1))
    assert preset("ticks", lrs=[0.5]).pretrain.lrs == (0.5,)


@pytest.mark.parametrize("name", TUNED)
@pytest.mark.parametrize("epochs", [1, 2, 3, 10, 49, 50, 200, 400])
def test_averages_reach_as_far_as_in_the_whole_study_and_never_too_far(name: str, epochs: int):
    whole, spec = preset(name), preset(name, epochs=epochs)
    assert spec.average is not None
    assert whole.average is not None
    reach = max(whole.average.counts) / (whole.pretrain.epochs or 1)
    longest = max(spec.average.counts)
    # The share of pre-training that averages reach over, to the next whole checkpoint.
    assert reach * epochs <= longest < reach * epochs + 1 or longest == max(whole.average.counts)
    if not spec.average.extend:
        assert longest <= epochs


@pytest.mark.parametrize("name", ["ticks", "ticks-minima", "digits"])
@pytest.mark.parametrize("option", ["scale", "width", "images", "test_images", "epochs", "finetune_epochs"])
def test_studies_without_images_cannot_be_resized(name: str, option: str):
    with pytest.raises(SpecError, match=f"The preset {name} has no {option}; only studies of images can change size"):
        preset(name, **{option: 1})  # pyright: ignore[reportArgumentType] - one of several whole numbers


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_the_practical_setting_is_what_the_paper_says(data: str):
    resnet, vit = preset(f"{data}-resnet-practical"), preset(f"{data}-vit")
    assert resnet.task.options == {
        "data": data,
        "model": "resnet18",
        "width": 64,
        "scale_invariant": False,
        "augment": ["crop_and_flip"],
    }
    assert resnet.task.rule is not None
    assert resnet.task.rule.settings == {"momentum": 0.9, "nesterov": False, "weight_decay": 5e-4}
    assert (resnet.pretrain.lrs[0], resnet.pretrain.lrs[-1], len(resnet.pretrain.lrs)) == (1e-4, 1.0, 13)
    shape = {"width": 512, "patch": 4, "depth": 6, "heads": 8, "mlp": 512, "dropout": 0.1}
    assert {name: vit.task.options[name] for name in shape} == shape
    assert vit.task.options["augment"] == ["randaugment", "crop_and_flip"]
    assert isinstance(vit.task.rule, Adam)
    assert (vit.task.rule.name, vit.task.rule.weight_decay, vit.task.batch_size) == ("adam", 1e-4, 512)
    assert (vit.pretrain.epochs, vit.pretrain.lrs[0], vit.pretrain.lrs[-1]) == (500, 1e-5, 1e-2)
    assert vit.finetune is not None
    assert (vit.finetune.lrs[0], vit.finetune.lrs[-1]) == (1e-5, 1e-4)
    assert vit.average is not None
    assert (vit.average.counts, vit.average.every_epochs, vit.average.extend) == ((2, 5, 10), 2, False)
    assert resnet.average is not None
    assert (resnet.average.counts, resnet.average.extend) == ((2, 5, 10, 50, 100), True)


def test_the_threshold_has_the_paper_s_plrs_and_a_smaller_one_shrinks_its_epochs():
    # Fig. 11: from 1e-4, which converges in 18 epochs, to 3.9e-4, which takes 2,600.
    spec = preset("cifar10-resnet-threshold")
    assert {1e-4, 2.5e-4, 3e-4, 3.5e-4, 3.9e-4} <= {*spec.pretrain.lrs}
    assert spec.pretrain.epochs is not None
    assert spec.pretrain.epochs > 2600
    assert spec.measure.convergence
    small = preset("cifar10-resnet-threshold", scale=0.1)
    assert (small.pretrain.epochs, small.finetune, small.average) == (300, None, None)


def test_a_second_plr_shrinks_with_pre_training():
    whole, half = preset("cifar10-resnet-two-stages"), preset("cifar10-resnet-two-stages", epochs=100)
    assert whole.second is not None
    assert half.second is not None
    assert (whole.second.plrs, whole.second.lrs, whole.second.epochs) == ((1e-2,), (1e-3,), 200)
    assert half.second.epochs == 100


def test_measurements_can_be_switched_on_and_an_unknown_one_is_named():
    spec = preset("digits", measure=["norms", "sharpness"])
    assert (spec.measure.norms, spec.measure.sharpness, spec.measure.convergence) == (True, True, False)
    with pytest.raises(SpecError, match=r"`measure\.norm` is not a field \(did you mean `norms`\?\)"):
        preset("digits", measure=["norm"])


@pytest.mark.parametrize("scale", [0, -1, 1.01, math.nan, math.inf])
def test_a_scale_out_of_range_is_refused(scale: float):
    with pytest.raises(SpecError, match=r"scale is .*; it must be above 0 and at most 1"):
        preset("cifar10-convnet", scale=scale)


@pytest.mark.parametrize("lrs", [[], [0.0], [0.1, 0.1]])
def test_lrs_of_a_preset_are_checked_as_in_a_spec(lrs: list[float]):
    with pytest.raises(SpecError, match=r"`pretrain\.lrs`"):
        preset("cifar10-convnet", lrs=lrs)


@pytest.mark.parametrize("option", ["width", "images", "test_images", "epochs", "finetune_epochs"])
def test_no_size_is_zero(option: str):
    with pytest.raises(SpecError, match=f"{option} is 0; it must be at least 1"):
        preset("fashion-convnet", **cast("dict[str, Any]", {option: 0}))
