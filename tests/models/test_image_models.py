"""What both image models must do: sizes, the two forms, stacking, memory layouts and compilation."""

from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lratlas.models.convnet import ConvNet
from lratlas.models.resnet import ResNet18
from lratlas.training.sphere import scale_dependent
from models.helpers import distinct, images

Kind = type[ConvNet] | type[ResNet18]
KINDS: tuple[Kind, ...] = (ConvNet, ResNet18)
kinds = pytest.mark.parametrize("kind", KINDS)
forms = pytest.mark.parametrize("scale_invariant", [False, True])


def make(kind: Kind, *, scale_invariant: bool, seed: int = 1, width: int = 4) -> ConvNet | ResNet18:
    torch.manual_seed(seed)
    return kind(channels=3, classes=5, width=width, scale_invariant=scale_invariant)


def trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def outputs_of(model: nn.Module, x: Tensor) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """The outputs for ``x`` as a function of the trained parameters, with the batch's own statistics."""

    def function(weights: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return functional_call(model.train(), dict(weights), (x,))

    return function


@settings(max_examples=25)
@given(
    kind=st.sampled_from(KINDS),
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    n=st.integers(1, 3),
    classes=st.integers(1, 4),
    scale_invariant=st.booleans(),
)
def test_images_of_any_size_give_one_row_of_outputs_each(
    kind: Kind, channels: int, size: tuple[int, int], n: int, classes: int, scale_invariant: bool
) -> None:
    torch.manual_seed(0)
    model = kind(channels=channels, classes=classes, width=2, scale_invariant=scale_invariant).double().eval()
    x = images(n, channels, kind.SMALLEST + size[0], kind.SMALLEST + size[1])
    with torch.no_grad():
        result = model(x)
        alone = torch.cat([model(one[None]) for one in x])
    assert result.shape == (n, classes)
    torch.testing.assert_close(result, alone)


@kinds
def test_images_that_are_too_small_are_refused_with_their_size(kind: Kind) -> None:
    least, model = kind.SMALLEST, make(kind, scale_invariant=True)
    sentence = f"{kind.__name__} needs images of at least {least}x{least} pixels, not {least - 1}x32."
    for size in ((least - 1, 32), (32, least - 1)):
        with pytest.raises(ValueError, match=sentence if size[0] < size[1] else f"not 32x{least - 1}"):
            model(torch.zeros(2, 3, *size))


@kinds
def test_inputs_that_are_no_batch_of_images_are_refused_with_their_shape(kind: Kind) -> None:
    with pytest.raises(ValueError, match=r"\[n, channels, height, width\], not \(3, 8, 8\)"):
        make(kind, scale_invariant=True)(torch.zeros(3, 8, 8))


@kinds
def test_the_scale_invariant_form_trains_convolutions_alone_and_freezes_the_head_at_norm_10(kind: Kind) -> None:
    model = make(kind, scale_invariant=True)
    convolutions = {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    assert set(trained(model)) == convolutions
    assert {name for name, _ in model.named_parameters()} - convolutions == {"head.weight"}
    assert float(model.head.weight.norm()) == pytest.approx(10, rel=1e-6)


@kinds
def test_the_ordinary_form_trains_everything(kind: Kind) -> None:
    model = make(kind, scale_invariant=False)
    assert set(trained(model)) == {name for name, _ in model.named_parameters()}
    assert "head.weight" in trained(model)


@kinds
def test_both_forms_start_from_the_same_convolutions(kind: Kind) -> None:
    ordinary, invariant = (make(kind, scale_invariant=form) for form in (False, True))
    start = trained(ordinary)
    assert all(torch.equal(value, start[name]) for name, value in trained(invariant).items())
    # Rescaled, not redrawn: the head keeps its direction.
    heads = [model.head.weight.detach() for model in (ordinary, invariant)]
    torch.testing.assert_close(heads[1], heads[0] * (10 / heads[0].norm()))


@kinds
@settings(max_examples=20)
@given(factor=st.floats(1e-3, 1e3))
def test_scaling_the_trained_vector_leaves_the_scale_invariant_form_as_it_is(kind: Kind, factor: float) -> None:
    model = make(kind, scale_invariant=True).double()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 1e-30  # the one thing that knows of the scale: without it only rounding is left
    function, weights = outputs_of(model, images(6, 3, 9, 8)), trained(model)
    before = function(weights)
    after = function({name: value * factor for name, value in weights.items()})
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)
    assert float(before.std()) > 0.1


@kinds
def test_the_check_of_scale_invariance_tells_the_forms_apart(kind: Kind) -> None:
    x = images(6, 3, 9, 8)
    invariant, ordinary = (make(kind, scale_invariant=form).double() for form in (True, False))
    assert scale_dependent(outputs_of(invariant, x), trained(invariant)) == []
    assert "head.weight" in scale_dependent(outputs_of(ordinary, x), trained(ordinary))


@kinds
@forms
def test_the_seed_decides_the_initial_weights(kind: Kind, scale_invariant: bool) -> None:
    first, again, other = (make(kind, scale_invariant=scale_invariant, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not any(torch.equal(value, other[name]) for name, value in first.items() if value.dim() > 1)


@kinds
@forms
def test_two_models_stacked_do_what_each_does_alone(kind: Kind, scale_invariant: bool) -> None:
    models = [distinct(make(kind, scale_invariant=scale_invariant, seed=seed)) for seed in (1, 2)]
    points = [{**dict(model.named_parameters()), **dict(model.named_buffers())} for model in models]
    stacked = {name: torch.stack([point[name].detach() for point in points]) for name in points[0]}
    template, x = make(kind, scale_invariant=scale_invariant).double().train(), images(4, 3, 6, 7)

    def outputs(point: dict[str, Tensor]) -> Tensor:
        return functional_call(template, point, (x,))

    with torch.no_grad():
        together = vmap(outputs)(stacked)
        apart = torch.stack([model(x) for model in models])
    torch.testing.assert_close(together, apart)
    for name, _ in models[0].named_buffers():
        # Running statistics were moved on in the stacked tensors themselves.
        torch.testing.assert_close(stacked[name], torch.stack([model.get_buffer(name) for model in models]))
    assert all(int(value) == 1 for name, value in models[0].named_buffers() if name.endswith("num_batches_tracked"))


@kinds
@forms
def test_channels_last_changes_nothing_but_the_layout(kind: Kind, scale_invariant: bool) -> None:
    x, results = images(4, 3, 8, 9), list[list[Tensor]]()
    for layout in (torch.contiguous_format, torch.channels_last):
        model = distinct(make(kind, scale_invariant=scale_invariant, width=8))  # PyTorch's own are not safe with less
        nn.utils.convert_conv2d_weight_memory_format(model, layout)
        outputs = model(x.to(memory_format=layout))
        outputs.square().sum().backward()
        results.append([outputs.detach(), *(value.grad for value in model.parameters() if value.grad is not None)])
    torch.testing.assert_close(results[1], results[0])


@kinds
def test_the_compiler_sees_one_graph_and_finds_the_same_gradients(kind: Kind) -> None:
    # The odd width leaves a column out of the pooling.
    x, model = images(4, 3, 8, 11), distinct(make(kind, scale_invariant=True))
    traced = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
    results, weights = list[list[Tensor]](), [value for value in model.parameters() if value.requires_grad]
    for function in (model, traced):
        outputs = function(x)
        gradients = torch.autograd.grad(outputs.square().sum(), weights)
        results.append([outputs.detach(), *gradients])
    torch.testing.assert_close(results[1], results[0])
