"""Which parameters precede a normalisation: by architecture, and that scaling all of them changes nothing."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lratlas.models.convnet import ConvNet
from lratlas.models.mlp import MLP
from lratlas.models.resnet import ResNet18
from lratlas.models.vit import ViT
from lratlas.training.invariance import pre_norm_names, run_trial
from models.helpers import images


class Attention(nn.Module):
    """Self-attention with a learned temperature; queries and keys by their own layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries, self.keys, self.values = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.outer = nn.Linear(width, width)
        self.temperature = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.queries(x) @ self.keys(x).transpose(1, 2) * self.temperature.exp()
        return self.outer(functional.dropout(scores.softmax(-1), 0.1, self.training) @ self.values(x))


class Layer(nn.Module):
    """A pre-norm block as it is usual, with no norm but the two."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width)
        self.norm2, self.linear1, self.linear2 = nn.LayerNorm(width), nn.Linear(width, 12), nn.Linear(12, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.linear2(functional.gelu(self.linear1(self.norm2(x))))


class Transformer(nn.Module):
    """Two blocks on the rows of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.position = nn.Linear(6, 8), nn.Parameter(torch.randn(1, 5, 8))
        self.layers = nn.Sequential(*[Layer(8) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(self.embedding(x) + self.position)).mean(1))


class Rough(MLP):
    """A perceptron whose code takes no other number format than float32."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


def layers(prefixes: list[str], *kinds: str) -> set[str]:
    return {f"{prefix}.{kind}" for prefix in prefixes for kind in kinds}


@dataclass(frozen=True)
class Case:
    """A model, inputs for it, and the names that its author would give."""

    model: nn.Module
    x: Tensor
    expected: set[str]


PICTURES, ROWS, POINTS = images(8, 1, 8, 8).float(), images(4, 5, 6).float(), images(8, 5).float()


def convolutions_of(model: nn.Module) -> Case:
    names = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    return Case(model, PICTURES, names)


def perceptron(widths: Sequence[int], outputs: int, kind: type[MLP] = MLP) -> Case:
    hidden = [f"layers.{3 * at}" for at in range(len(widths))]
    return Case(kind(5, widths, outputs), POINTS, layers(hidden, "weight", "bias"))


def batch_normed() -> Case:
    norms = [nn.BatchNorm1d(6), nn.BatchNorm1d(7)]
    model = nn.Sequential(nn.Linear(5, 6), norms[0], nn.ReLU(), nn.Linear(6, 7), norms[1], nn.Linear(7, 3))
    return Case(model, POINTS, layers(["0", "3"], "weight", "bias"))


def vit() -> Case:
    model = ViT(channels=1, classes=3, size=(8, 8), width=8, depth=2, heads=2, mlp=12)
    # Each linear layer of the blocks' perceptrons has a layer norm after it.
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and ".mlp." in name]
    return Case(model, PICTURES, layers(names, "weight", "bias"))


def transformer() -> Case:
    # What writes on the residual stream is scale-invariant together, for all that reads it is a norm.
    writers = [f"layers.{block}.{part}" for block in range(2) for part in ("attention.outer", "linear2")]
    stream = layers(["embedding", *writers], "weight", "bias") | {"position"}
    return Case(Transformer(), ROWS, stream)


def no_norm() -> Case:
    # The two layers undo each other where one grows as the other shrinks, but not together.
    return Case(nn.Sequential(nn.Linear(5, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)), POINTS, set())


KINDS: dict[str, Callable[[], Case]] = {
    "convnet": lambda: convolutions_of(ConvNet(channels=1, classes=3, width=2)),
    "resnet": lambda: convolutions_of(ResNet18(channels=1, classes=3, width=2)),
    "scale-invariant": lambda: convolutions_of(ResNet18(channels=1, classes=3, width=2, scale_invariant=True)),
    "mlp": lambda: perceptron((6, 7), 3),
    "one output": lambda: perceptron([6] * 5, 1),
    "batch norm": batch_normed,
    "vit": vit,
    "transformer": transformer,
    "own format": lambda: perceptron((6, 7), 3, Rough),
    "no norm": no_norm,
}


def made(kind: str) -> Case:
    torch.manual_seed(0)
    return KINDS[kind]()


kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_the_weights_before_norm_layers_are_found(kind: str) -> None:
    case = made(kind)
    assert pre_norm_names(case.model, case.x) == tuple(sorted(case.expected))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "no norm"])
@pytest.mark.parametrize("factor", [0.1, 30.0])
def test_scaling_them_together_leaves_the_outputs_as_they_are(kind: str, factor: float) -> None:
    case = made(kind)
    model, x = case.model, case.x
    trial = run_trial(model, x)
    for module in trial.model.modules():
        if isinstance(module, (nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d)):
            module.eps = 1e-30  # the one thing that knows of the scale
    names = pre_norm_names(model, x)
    scaled = {name: value * (factor if name in names else 1) for name, value in trial.weights.items()}
    before, after = trial.outputs(trial.weights), trial.outputs(scaled)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-5 if kind == "own format" else 1e-8)
    # No more would do: with any layer but these it would change.
    others = {name.rpartition(".")[0] for name in trial.weights if name not in names and trial.weights[name].dim() > 1}
    for layer in others:
        more = {name: value * (factor if name.rpartition(".")[0] == layer else 1) for name, value in scaled.items()}
        assert not torch.allclose(trial.outputs(more), before, rtol=1e-3, atol=1e-4)


def test_a_layer_hidden_by_a_zero_is_not_taken_for_invariant() -> None:
    head = nn.Linear(6, 3)
    nn.init.zeros_(head.weight)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), head)
    assert pre_norm_names(model, POINTS) == ()


def test_weights_without_a_use_and_frozen_ones_are_left_out() -> None:
    torch.manual_seed(0)
    model = MLP(5, (6, 7), 3)
    model.register_parameter("idle", nn.Parameter(torch.randn(3, 3)))
    model.get_parameter("layers.0.weight").requires_grad = False
    model.get_parameter("layers.0.bias").requires_grad = False
    assert pre_norm_names(model, POINTS) == ("layers.3.bias", "layers.3.weight")
    assert pre_norm_names(model.requires_grad_(requires_grad=False), POINTS) == ()


def test_a_slope_that_is_no_number_speaks_against_invariance() -> None:
    class Rooted(nn.Module):
        """A linear layer whose weights get no finite gradient, before one that has a norm."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 6)
            self.norm = nn.LayerNorm(6)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.second(self.first(x) + 0 * (0 * self.first.weight.sum()).abs().sqrt()))

    torch.manual_seed(0)
    assert pre_norm_names(Rooted(), POINTS) == ("second.bias", "second.weight")


@kinds
def test_nothing_is_changed_and_the_answer_is_always_the_same(kind: str) -> None:
    case = made(kind)
    model, x = case.model, case.x
    model.eval()
    state, eps = copy.deepcopy(model.state_dict()), [vars(module).get("eps") for module in model.modules()]
    flags = [value.requires_grad for value in model.parameters()]
    before = torch.get_rng_state()
    found = pre_norm_names(model, x)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [vars(module).get("eps") for module in model.modules()] == eps
    assert [value.requires_grad for value in model.parameters()] == flags
    assert all(value.grad is None for value in model.parameters())
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        torch.manual_seed(5)
        assert pre_norm_names(model.train(), x) == found
