"""The ViT against its definition: parameters by arithmetic, outputs by a forward pass written out token by token."""

import copy
import math
import re
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager
from torch.nn import functional

from lratlas.models.vit import Block, LocalityAttention, ShiftedPatches, ViT
from lratlas.training.objective import LOSSES
from lratlas.training.program import Program, Strategy, build
from lratlas.training.rules import Rule, adam, sgd
from lratlas.training.sphere import Weights
from lratlas.training.state import start_stack
from lratlas.training.trainer import train_stack
from models.helpers import counts, images
from training.helpers import lane, plain_training, point_of, same, samples_of

Model = TypeVar("Model", bound=nn.Module)
SMALL: dict[str, Any] = {
    "channels": 2,
    "classes": 3,
    "size": (4, 6),
    "patch": 2,
    "width": 6,
    "depth": 2,
    "heads": 2,
    "mlp": 5,
}


def small(**changes: Any) -> ViT:
    """A small ViT in float64 whose norms' scales and shifts are not all one and zero."""
    torch.manual_seed(1)
    return distinct(ViT(**(SMALL | changes)))


def distinct(model: Model) -> Model:
    for layer in model.modules():
        if isinstance(layer, nn.LayerNorm):
            nn.init.uniform_(layer.weight, 0.5, 2.0)
            nn.init.normal_(layer.bias)
    return model.double()


@settings(max_examples=20)
@given(
    channels=st.integers(1, 3),
    classes=st.integers(1, 9),
    patch=st.integers(1, 4),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    heads=st.integers(1, 3),
    each=st.integers(1, 4),
    depth=st.integers(1, 3),
    mlp=st.integers(1, 6),
)
def test_parameters_follow_from_the_arguments(
    channels: int, classes: int, patch: int, grid: tuple[int, int], heads: int, each: int, depth: int, mlp: int
) -> None:
    width, pixels = heads * each, 5 * channels * patch**2
    size = (grid[0] * patch, grid[1] * patch)
    made = ViT(
        channels=channels, classes=classes, size=size, patch=patch, width=width, depth=depth, heads=heads, mlp=mlp
    )
    attention = 1 + 3 * width**2 + width**2 + width
    hidden = width * mlp + mlp + 2 * mlp + mlp * width + width + 2 * width
    blocks = depth * (2 * width + attention + 2 * width + hidden)
    tokens = 2 * pixels + pixels * width + width
    places = width + (1 + grid[0] * grid[1]) * width
    assert counts(made) == (tokens + places + blocks + 2 * width + width * classes + classes, 0)


def test_the_defaults_are_the_papers() -> None:
    made = ViT(channels=3, classes=10, size=(32, 32))
    assert made.positions.shape == (1 + 8 * 8, 512)
    attentions = [layer for layer in made.modules() if isinstance(layer, LocalityAttention)]
    assert [layer.heads for layer in attentions] == [8] * 6
    # The usual temperature of heads of dimension 64.
    assert all(float(layer.log_temperature.detach().exp()) == pytest.approx(1 / 8) for layer in attentions)
    units = [made.get_parameter(f"blocks.{at}.mlp.1.weight").shape for at in range(6)]
    assert units == [(512, 512)] * 6
    # After the positions, and in each block after the attention and after each layer of the MLP.
    assert [layer.p for layer in made.modules() if isinstance(layer, nn.Dropout)] == [0.1] * (1 + 3 * 6)


def reference_tokens(model: ShiftedPatches, x: Tensor, *, patch: int) -> Tensor:
    """Tokens, pixel by pixel: the image in its place, then moved right, left, down and up by a pixel."""
    n, channels, height, width = x.shape

    def seen(row: int, column: int) -> Tensor:
        inside = 0 <= row < height and 0 <= column < width
        return x[:, :, row, column] if inside else torch.zeros(n, channels, dtype=x.dtype)

    tokens: list[Tensor] = []
    for top in range(0, height, patch):
        for left in range(0, width, patch):
            parts = [
                torch.stack([seen(top + i - down, left + j - right) for i in range(patch) for j in range(patch)], 2)
                for down, right in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
            ]
            # Channel after channel of the image, then of each copy.
            joined = torch.cat(parts, 1).flatten(1)
            tokens.append(
                model.embed(functional.layer_norm(joined, joined.shape[1:], model.norm.weight, model.norm.bias))
            )
    return torch.stack(tokens, 1)


def reference_attention(model: LocalityAttention, x: Tensor) -> Tensor:
    """Attention head by head and token by token, over all other tokens."""
    n, tokens, width = x.shape
    each = width // model.heads
    queries, keys, values = (x @ part.T for part in model.qkv.weight.chunk(3))
    result = torch.zeros_like(x)
    for head in range(model.heads):
        part = slice(head * each, (head + 1) * each)
        for at in range(tokens):
            others = [other for other in range(tokens) if other != at]
            scores = (queries[:, at, None, part] * keys[:, others, part]).sum(2) * model.log_temperature.exp()
            odds = (scores - scores.amax(1, keepdim=True)).exp()
            shares = odds / odds.sum(1, keepdim=True)
            result[:, at, part] = (shares[:, :, None] * values[:, others, part]).sum(1)
    assert len(result) == n
    return result @ model.out.weight.T + model.out.bias


def reference_block(block: Block, x: Tensor) -> Tensor:
    norm, attention = block.attention[0], block.attention[1]
    assert isinstance(attention, LocalityAttention)
    x = x + reference_attention(attention, norm(x))
    before, first, after_first, _, _, second, after_second, _ = block.mlp
    hidden = after_first(first(before(x)))
    active = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + after_second(second(active))


@pytest.mark.parametrize("patch", [1, 2, 3, 4])
def test_a_token_holds_its_patch_and_its_shifts_by_a_pixel(patch: int) -> None:
    torch.manual_seed(1)
    model, x = distinct(ShiftedPatches(2, 5, patch=patch)), images(3, 2, 2 * patch, 3 * patch)
    torch.testing.assert_close(model(x), reference_tokens(model, x, patch=patch))


def test_a_token_sees_the_pixels_next_to_its_own() -> None:
    torch.manual_seed(1)
    model, x = ShiftedPatches(1, 4, patch=4).double(), images(1, 1, 12, 12).requires_grad_()
    token = model(x)[0, 4]  # the patch in the middle, pixels 4 to 7
    (slope,) = torch.autograd.grad(token.square().sum(), x)
    seen = torch.zeros(12, 12, dtype=torch.bool)
    seen[3:9, 4:8] = seen[4:8, 3:9] = True
    assert torch.equal(slope[0, 0] != 0, seen)


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_is_a_softmax_over_the_other_tokens_at_the_learned_temperature(heads: int) -> None:
    torch.manual_seed(1)
    model, x = LocalityAttention(6, heads=heads).double(), images(2, 4, 6)
    for temperature in (float(model.log_temperature.detach()), 1.5):
        nn.init.constant_(model.log_temperature, temperature)
        torch.testing.assert_close(model(x), reference_attention(model, x))


def test_a_token_does_not_attend_to_itself() -> None:
    torch.manual_seed(1)
    model, x = LocalityAttention(6, heads=2).double(), images(1, 4, 6)
    with torch.no_grad():
        model.qkv.weight[:6] = 0  # without queries a token takes part by its values alone
        slopes: Any = torch.func.jacrev(model)(x)
        strength = slopes[0, :, :, 0].square().sum((1, 3))  # of each token's output, by each token
    assert torch.equal(strength.diagonal(), torch.zeros(4, dtype=torch.float64))
    assert int((strength > 1e-6).sum()) == 4 * 3


def test_the_temperature_is_learned() -> None:
    model = small()
    temperatures = {name: value for name, value in model.named_parameters() if name.endswith("log_temperature")}
    assert len(temperatures) == 2
    loss = functional.cross_entropy(model.eval()(images(5, 2, 4, 6)), torch.tensor([0, 1, 2, 0, 1]))
    slopes = torch.autograd.grad(loss, [*temperatures.values()])
    assert all(value.requires_grad and value.dim() == 0 for value in temperatures.values())
    assert all(abs(float(slope)) > 1e-6 for slope in slopes)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_whole_model_is_tokens_positions_blocks_and_a_head_of_the_class_token(channels: int) -> None:
    model, x = small(channels=channels).eval(), images(3, channels, 4, 6)
    tokens = reference_tokens(model.tokens, x, patch=2)
    hidden = torch.stack([torch.cat([model.class_token[None], each]) for each in tokens]) + model.positions
    for block in model.blocks:
        assert isinstance(block, Block)
        hidden = reference_block(block, hidden)
    torch.testing.assert_close(model(x), model.head(model.norm(hidden[:, 0])))


def test_dropout_is_random_in_training_and_absent_in_evaluation() -> None:
    model, x = small(dropout=0.3), images(3, 2, 4, 6)
    model.train()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    torch.testing.assert_close(model(x), small(dropout=0.0).train()(x))


def test_every_dropout_layer_takes_part() -> None:
    model, x = small(dropout=0.0).train(), images(3, 2, 4, 6)
    layers, before = [layer for layer in model.modules() if isinstance(layer, nn.Dropout)], model(x)
    for layer in layers:
        layer.p = 0.5
        assert not torch.equal(model(x), before)
        layer.p = 0.0
    assert len(layers) == 1 + 3 * 2


def test_each_image_is_treated_alone() -> None:
    model, x = small().eval(), images(4, 2, 4, 6)
    torch.testing.assert_close(model(x), torch.cat([model(one[None]) for one in x]))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"patch": 3}, "patch is 3, which does not divide images of 4x6 pixels; allowed are 1, 2."),
    ({"patch": 4}, "patch is 4, which does not divide images of 4x6 pixels; allowed are 1, 2."),
    ({"size": (12, 18), "patch": 5}, "images of 12x18 pixels; allowed are 1, 2, 3, 6."),
    ({"heads": 4}, "width is 6 and heads is 4; width must be a multiple of heads."),
    ({"dropout": 1.0}, "dropout is 1; it must be at least 0 and below 1."),
    ({"dropout": -0.1}, "dropout is -0.1"),
    *(({name: 0}, f"{name} is 0; it must be at least 1.") for name in ("patch", "width", "depth", "heads", "mlp")),
]


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_what_cannot_be_made_is_said(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        small(**changes)


@pytest.mark.parametrize("shape", [(2, 4, 6), (5, 2, 6, 4), (5, 1, 4, 6), (5, 2, 8, 6)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"shape [n, 2, 4, 6], not {shape}")):
        small()(torch.zeros(*shape))


LRS, DECAY = (0.01, 0.1), 0.1
X, Y = images(8, 2, 4, 6), torch.arange(8) % 3
BATCHES = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]])


def program_of(model: ViT, rule: Rule, strategy: Strategy, *, compiled: bool = False) -> Program:
    return build(model, LOSSES["cross_entropy"], rule, compiled=compiled, strategy=strategy)


def trained(program: Program, model: ViT, *lrs: float) -> list[Weights]:
    """The weights of each LR after two steps."""
    point = point_of([copy.deepcopy(model) for _ in lrs])
    result = train_stack(
        program,
        start_stack(point.weights, point.buffers, program.rule),
        lrs=torch.tensor([lrs], dtype=X.dtype),
        batches=BATCHES[:, None],
        train=samples_of(X, Y, point),
    )
    return [lane(result.stack.weights, at) for at in range(len(lrs))]


def by_hand(model: ViT, kind: type[torch.optim.SGD] | type[torch.optim.Adam], lr: float) -> Weights:
    after = plain_training(
        model,
        lambda parameters: kind(parameters, lr, weight_decay=DECAY),
        [(X[rows], Y[rows]) for rows in BATCHES],
    )
    return dict(after.named_parameters())


def test_under_both_strategies_training_is_an_ordinary_loop() -> None:
    model, rule = small(dropout=0.0), adam(weight_decay=DECAY)
    stacked = trained(program_of(model, rule, "stack"), model, *LRS)
    alone = [trained(program_of(model, rule, "single"), model, lr)[0] for lr in LRS]
    for at, lr in enumerate(LRS):
        expected = by_hand(model, torch.optim.Adam, lr)
        same(stacked[at], expected, atol=1e-6)
        same(alone[at], expected, atol=1e-6)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is compiled, to be counted: by the compiler's first half alone, for the C++ that would follow takes long."""
    found, compiler = list[object](), torch.compile

    def first_half(graph: Any, inputs: Any) -> Any:
        found.append(graph)
        return aot_eager(graph, inputs)

    def half_compiled(step: Any, **_: object) -> Any:
        return compiler(step, backend=first_half, fullgraph=True, dynamic=False)

    monkeypatch.setattr(torch, "compile", half_compiled)
    return found


def compiled_is_by_hand() -> None:
    model = small(dropout=0.0, depth=1)
    (weights,) = trained(program_of(model, sgd(weight_decay=DECAY), "single", compiled=True), model, LRS[1])
    same(weights, by_hand(model, torch.optim.SGD, LRS[1]), atol=1e-9)


def test_half_compiled_a_run_is_the_same(graphs: list[object]) -> None:
    compiled_is_by_hand()
    assert graphs


@pytest.mark.long
def test_compiled_a_run_is_the_same() -> None:
    compiled_is_by_hand()


def test_a_stacks_step_is_one_graph_for_the_compiler_and_each_run_drops_numbers_of_its_own(
    graphs: list[object],
) -> None:
    model = small(dropout=0.5, depth=1)
    for compiled in (False, True):
        first, second = trained(program_of(model, sgd(), "stack", compiled=compiled), model, 0.1, 0.1)
        assert len(graphs) == compiled
        assert not torch.equal(first["head.weight"], second["head.weight"])
