"""What a plain PyTorch loop does is what is trained, or the task is refused: kinds of models that functions mistake."""

# pyright: reportUnknownLambdaType=false

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lratlas import Task
from lratlas.errors import TaskError
from lratlas.stacks.tensors import initial_tensors, samples
from lratlas.training.prepared import Prepared, make_model
from lratlas.training.program import build
from lratlas.training.state import start_stack
from lratlas.training.trainer import train_stack

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(48, 6, generator=GENERATOR)
Y = torch.arange(48) % 3
WORDS = torch.randint(9, (48, 6), generator=GENERATOR)
IMAGES = torch.rand(48, 1, 6, 6, generator=GENERATOR)
CPU = torch.device("cpu")
ONE = nn.Linear(6, 3)


def task(model: Callable[[], nn.Module] = lambda: nn.Linear(6, 3), **changes: Any) -> Task:
    fields: dict[str, Any] = {"model": model, "train": (X, Y), "test": (X, Y), "batch_size": 8}
    return Task(**(fields | changes))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


class Wrapped(nn.Module):
    """A linear layer in a model whose forward each case writes itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=False)


class Annealed(Wrapped):
    temperature = 1.0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.temperature = 0.97 * self.temperature
        return self.layer(x) / self.temperature


class Counting(Wrapped):
    """Its state lies in a dictionary, and has an effect only after many steps."""

    def __init__(self) -> None:
        super().__init__()
        self.state = {"steps": 0}

    def forward(self, x: Tensor) -> Tensor:
        self.state["steps"] += 1
        return self.layer(x) if self.state["steps"] < 1000 else 0 * self.layer(x)


class Remembering(Wrapped):
    """A tensor attribute that is not a buffer takes part in the outputs."""

    mean: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(0).detach()
        self.mean = mean if self.mean is None else 0.5 * self.mean + 0.5 * mean
        return self.layer(x - self.mean)


class FromNumPy(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (1 + float(np.random.default_rng(0).random())) + float(np.random.random())  # noqa: NPY002


class FromPython(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + random.random()


def hooked(change: Callable[[Tensor], Tensor | None]) -> nn.Module:
    model = nn.Linear(6, 3)
    for value in model.parameters():
        value.register_hook(change)
    return model


def clipped_afterwards() -> nn.Module:
    model = nn.Linear(6, 3)

    def clip(value: Tensor) -> None:
        assert value.grad is not None
        value.grad.clamp_(-1e-4, 1e-4)

    for value in model.parameters():
        value.register_post_accumulate_grad_hook(clip)
    return model


class Overwriting(Wrapped):
    """Weights are put into a range by the forward pass itself."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.layer.weight.data = self.layer.weight.data.clamp(-0.05, 0.05)
        return self.layer(x)


class RandomFeatures(nn.Module):
    """Random numbers drawn when the model is made, kept outside parameters and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.waves, self.layer = torch.randn(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer((x @ self.waves.to(x)).cos())


class Averaged(Wrapped):
    """Keeps an average of its weights as parameters, and uses it in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.optim.swa_utils.AveragedModel(self.layer)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.mean(x)
        self.mean.update_parameters(self.layer)
        return self.layer(x)


class CountingSGD(torch.optim.SGD):
    """Lowers its LR after some steps that it counts itself."""

    def __init__(self, parameters: list[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, lr=lr)
        self.steps = 0

    def step(self, closure: Any = None) -> Any:
        self.steps += 1
        if self.steps == 5:
            self.param_groups[0]["lr"] *= 0.01
        return super().step(closure)


class ScheduleFree(torch.optim.SGD):
    """Has two modes, as schedule-free optimizers have."""

    def train(self) -> None: ...

    def eval(self) -> None: ...


class Widening(Wrapped):
    """Makes a buffer in forward."""

    def forward(self, x: Tensor) -> Tensor:
        self.register_buffer("last", x.mean(0).detach())
        return self.layer(x)


class Double(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.double())


class CallCounter:
    """A loss that changes with every call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        return functional.cross_entropy(outputs, targets) * self.calls


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "gradient clipping by hooks": (
        {"model": lambda: hooked(lambda g: g.clamp(-1e-4, 1e-4))},
        "gradient hook on weight",
    ),
    "gradients halved by hooks": ({"model": lambda: hooked(lambda g: g / 2)}, "plain PyTorch loop.*gradient hook"),
    "hooks after accumulation": ({"model": clipped_afterwards}, "gradient hook on weight, bias"),
    "gradient checkpointing": ({"model": Checkpointed}, "weights from outside.*checkpointing"),
    "a number that training lowers": (
        {"model": Annealed},
        "attribute temperature in every forward pass .0.97, then 0.94",
    ),
    "a counter in a dictionary": ({"model": Counting}, r"attribute state .*\{'steps': 1\}.*buffer"),
    "a running mean that is no buffer": ({"model": Remembering}, "gives different results"),
    "NumPy's generator in forward": ({"model": FromNumPy}, "NumPy's or Python's generator"),
    "Python's generator in forward": ({"model": FromPython}, "NumPy's or Python's generator"),
    "a loss that counts its calls": ({"loss": CallCounter()}, "plain PyTorch loop|Repeating"),
    "weights overwritten in forward": ({"model": Overwriting}, "differs from that of a plain PyTorch loop"),
    "random tensors that are no buffers": ({"model": RandomFeatures}, "drawn when the model is made"),
    "an average of weights as parameters": ({"model": Averaged}, "changes its parameters mean.module.weight.*buffers"),
    "an optimizer that counts its steps": ({"rule": CountingSGD}, "CountingSGD changes steps in its steps"),
    "a schedule-free optimizer": ({"rule": ScheduleFree}, "ScheduleFree is schedule-free"),
    "a buffer made in forward": ({"model": Widening}, "last"),
    "a transform of the whole batch": ({"transform": lambda x: x / x.abs().amax()}, "depends on the other samples"),
    "a transform that draws": ({"transform": lambda x: x + torch.randn_like(x)}, "transform draws random numbers"),
    "float64 only": ({"model": Double}, "does not accept float32"),
    "one module for all": ({"model": lambda: ONE}, "the same module twice.*copy.deepcopy"),
    "a trained part shared": (
        {"model": lambda: nn.Sequential(ONE, nn.Linear(3, 3))},
        "modules that share 0.weight, 0.bias",
    ),
    "DataParallel": ({"model": lambda: nn.DataParallel(nn.Linear(6, 3))}, "DataParallel: pass the module inside"),
    "TorchScript": ({"model": lambda: torch.jit.script(nn.Linear(6, 3))}, "ScriptModule"),
    "weight_norm of old": (
        {"model": lambda: nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(6, 3)))},
        "parametrizations.weight_norm works",
    ),
    "complex parameters": (
        {"model": lambda: nn.Linear(6, 3, dtype=torch.cfloat)},
        "complex parameters, weight, bias",
    ),
    "a loss with parameters": ({"loss": nn.Sequential(nn.Linear(3, 3))}, "trainable parameters, 0.weight, 0.bias"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:.*jit.*:DeprecationWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_what_a_plain_loop_would_train_in_another_way_is_refused(case: str) -> None:
    changes, words = REFUSED[case]
    with pytest.raises(TaskError, match=words) as caught:
        task(**changes)
    assert "\n" not in str(caught.value)


def trained_by_stack(made: Prepared, lr: float, steps: int) -> dict[str, Tensor]:
    """The weights of one run after some steps of the program, alone."""
    model = make_model(made, 1)
    program = build(
        model,
        made.objective,
        made.update,
        compiled=False,
        strategy="single",
        batch_size=made.samples_per_step,
        channels_last=made.conformance.channels_last,
    )
    weights, buffers, frozen = initial_tensors([made], [1], 1, dtype=torch.float32, device=CPU)
    torch.manual_seed(7)
    order = torch.arange(steps * made.samples_per_step).reshape(steps, 1, -1) % made.samples
    trained = train_stack(
        program,
        start_stack(weights, buffers, made.update),
        lrs=torch.full((1, 1), lr),
        batches=order,
        train=samples([made], "train", frozen, dtype=torch.float32, device=CPU),
    )
    stack = trained.stack
    return {name: value[0, 0] for name, value in (stack.weights | stack.buffers).items()}


def trained_by_loop(
    given: Task,
    loss: Callable[[Any, Any], Tensor],
    lr: float,
    steps: int,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
) -> dict[str, Tensor]:
    """The same with a model, a loss and an optimizer as one writes them."""
    model = make_model(given.prepared, 1).train()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.sparse = True  # what the author wrote
    made = optimizer([value for value in model.parameters() if value.requires_grad], lr=lr)
    x, y = given.prepared.train
    torch.manual_seed(7)
    for at in (torch.arange(steps * 8) % 48).split(8):
        made.zero_grad()
        inputs = x[at] if isinstance(x, Tensor) else {name: part[at] for name, part in x.items()}
        outputs = model(inputs) if isinstance(x, Tensor) else model(**inputs)
        loss(outputs, y[at]).backward()
        made.step()
    return {name: value.detach() for name, value in (*model.named_parameters(), *model.named_buffers())}


class Words(nn.Module):
    def __init__(self, *, sparse: bool = False, max_norm: float | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4, sparse=sparse, max_norm=max_norm)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding(x).flatten(1))


class Centred(nn.Module):
    """A buffer that forward replaces instead of changing it in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(6))
        self.mean: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.layer(x - self.mean)


class Named(nn.Module):
    """Called with two named inputs; returns an object of logits."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 3), nn.Linear(4, 3, bias=False)

    def forward(self, *, long: Tensor, short: Tensor) -> dict[str, Tensor]:
        return {"logits": self.first(long) + self.second(short), "hidden": short}


class WithUnused(nn.Module):
    """A head that is not used: a plain optimizer's weight decay leaves it alone."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class Experts(nn.Module):
    """Samples choose their layer; the third is needed rarely, and not in the first batches."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        chosen = torch.where(x[:, 0] > 2, 2, (x[:, 0] > 0).long())
        outputs = x.new_zeros(len(x), 3)
        for index in chosen.unique().tolist():
            at = torch.where(chosen == index)[0]
            outputs = outputs.index_put((at,), self.layers[index](x[at]))
        return outputs


class Skipping(nn.Module):
    """Stochastic depth: a layer has no gradient in steps that leave it out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and float(torch.rand(())) < 0.5:
            return self.second(x)
        return self.second(self.first(x))


class Viewing(nn.Module):
    """Flattens by a view, which images with the channels last in memory do not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 4, 3), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.convolution(x).relu()
        return self.head(hidden.view(hidden.shape[0], -1))


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("mask", torch.triu(torch.full((6, 6), -torch.inf), 1))
        self.register_buffer("empty", torch.zeros(0))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x @ self.get_buffer("mask").softmax(1))


COLOURS = torch.rand(48, 3, 6, 6, generator=GENERATOR)
RARE = torch.cat([X[:1].abs() + 2, X[1:].clamp(max=1.5)]).roll(40, 0)


def pair_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Samples of one class together, others apart."""
    unit = functional.normalize(outputs, dim=1)
    same = (targets[:, None] == targets[None]).to(unit)
    return ((1 - unit @ unit.T) * same + (unit @ unit.T).clamp(min=0) * (1 - same)).mean()


def correlation_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    one, other = outputs[:, 0] - outputs[:, 0].mean(), targets - targets.float().mean()
    return 1 - (one * other).sum() / (one.norm() * other.norm() + 1e-8)


def logits_loss(outputs: Any, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs["logits"], targets)


WEIGHTED = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.1]))
TRAINED: dict[str, tuple[dict[str, Any], Callable[[Any, Any], Tensor], Callable[..., torch.optim.Optimizer]]] = {
    "class weights": ({"loss": WEIGHTED}, WEIGHTED, torch.optim.SGD),
    "a sum": ({"loss": nn.CrossEntropyLoss(reduction="sum")}, nn.CrossEntropyLoss(reduction="sum"), torch.optim.SGD),
    "pairs": ({"loss": pair_loss}, pair_loss, torch.optim.SGD),
    "a correlation": ({"loss": correlation_loss}, correlation_loss, torch.optim.SGD),
    "label smoothing": (
        {"loss": nn.CrossEntropyLoss(label_smoothing=0.2)},
        nn.CrossEntropyLoss(label_smoothing=0.2),
        torch.optim.SGD,
    ),
    "an ignored label": (
        {"loss": nn.CrossEntropyLoss(ignore_index=-100), "train": (X, torch.where(torch.arange(48) % 5 > 0, Y, -100))},
        nn.CrossEntropyLoss(ignore_index=-100),
        torch.optim.SGD,
    ),
    "dropout, with the same draws": (
        {"model": lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))},
        functional.cross_entropy,
        torch.optim.SGD,
    ),
    "a buffer that is replaced": ({"model": Centred}, functional.cross_entropy, torch.optim.SGD),
    "sparse embeddings": (
        {"model": lambda: Words(sparse=True), "train": (WORDS, Y), "test": (WORDS, Y)},
        functional.cross_entropy,
        torch.optim.SGD,
    ),
    "embeddings of bounded norm": (
        {"model": lambda: Words(max_norm=0.5), "train": (WORDS, Y), "test": (WORDS, Y)},
        functional.cross_entropy,
        torch.optim.SGD,
    ),
    "named inputs and logits": (
        {"model": Named, "train": ({"long": X, "short": X[:, :4]}, Y), "test": ({"long": X, "short": X[:, :4]}, Y)},
        logits_loss,
        torch.optim.SGD,
    ),
    "spectral norm": (
        {"model": lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 3)))},
        functional.cross_entropy,
        torch.optim.SGD,
    ),
    "an optimizer with state": (
        {"rule": lambda p, lr: torch.optim.RMSprop(p, lr=lr, momentum=0.5)},
        functional.cross_entropy,
        lambda p, lr: torch.optim.RMSprop(p, lr=lr, momentum=0.5),
    ),
    "weights that are not used": (
        {"model": WithUnused, "rule": {"name": "sgd", "weight_decay": 0.1}},
        functional.cross_entropy,
        lambda p, lr: torch.optim.SGD(p, lr=lr, weight_decay=0.1),
    ),
    "experts, one rarely used": (
        {"model": Experts, "train": (RARE, Y), "test": (RARE, Y), "rule": {"name": "adam", "weight_decay": 0.1}},
        functional.cross_entropy,
        lambda p, lr: torch.optim.Adam(p, lr=lr, weight_decay=0.1),
    ),
    "a layer left out at random": (
        {"model": Skipping, "rule": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1}},
        functional.cross_entropy,
        lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=0.1),
    ),
    "a view of images": (
        {"model": Viewing, "train": (COLOURS, Y), "test": (COLOURS, Y)},
        functional.cross_entropy,
        torch.optim.SGD,
    ),
    "a mask of infinities": ({"model": Masked}, functional.cross_entropy, torch.optim.SGD),
    "hooks that only look": ({"model": lambda: hooked(lambda _: None)}, functional.cross_entropy, torch.optim.SGD),
}


@pytest.mark.parametrize("case", TRAINED)
def test_steps_are_those_of_a_loop_written_by_hand(case: str) -> None:
    changes, loss, optimizer = TRAINED[case]
    given = task(**changes)
    found = trained_by_stack(given.prepared, 0.05, steps=7)
    expected = trained_by_loop(given, loss, 0.05, 7, optimizer)
    assert set(found) | set(given.prepared.conformance.unused) == set(expected)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=2e-4, atol=2e-6)


def test_a_lazy_layer_gets_the_weights_of_its_seed() -> None:
    given = task(lambda: nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(3)))
    one, again, other = (make_model(given.prepared, seed).state_dict() for seed in (1, 1, 2))
    assert one["0.weight"].shape == (4, 6)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])


def test_what_was_found_of_a_task_is_recorded() -> None:
    plain, random_layers = task().prepared.conformance, task(lambda: nn.Sequential(nn.Dropout(), nn.Linear(6, 3)))
    assert (plain.draws, plain.exact, plain.unused, plain.unstackable) == (False, True, (), "")
    assert random_layers.prepared.conformance.draws
    assert task(WithUnused).prepared.conformance.unused == ("unused.weight", "unused.bias")
    assert "item()" in task(ByValue).prepared.conformance.unstackable


class ByValue(Wrapped):
    """What it does depends on the values that it sees, which one program for many runs cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.layer(x)
        return outputs if float(outputs.detach().sum()) > 0 else 2 * outputs


def test_frozen_parts_that_models_share_are_the_users_own() -> None:
    backbone = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)).requires_grad_(requires_grad=False)
    before = copy.deepcopy(backbone.state_dict())
    made = task(lambda: nn.Sequential(backbone, nn.Linear(6, 3))).prepared
    assert made.copied
    make_model(made, 1)[0][0].weight.data.zero_()  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert backbone[0].weight.dtype == torch.float32


def test_a_model_that_takes_only_float32_is_compared_in_float32() -> None:
    class Float32Only(Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            return functional.linear(x.float(), self.layer.weight) * torch.ones(3)

    assert not task(Float32Only).prepared.conformance.exact


def test_the_users_objects_and_generators_are_left_alone() -> None:
    loss, images = nn.CrossEntropyLoss(weight=torch.ones(3)), IMAGES.numpy().copy()
    before, weights = images.copy(), copy.deepcopy(loss.state_dict())
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 - a user's own
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    task(
        lambda: nn.Sequential(nn.Dropout(0.3, inplace=True), nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(36, 3)),
        train=(images, Y),
        test=(images, Y),
        loss=loss,
        transform=lambda x: x.sub_(0.5).mul_(2),
    )
    assert np.array_equal(images, before)
    assert all(torch.equal(value, weights[name]) for name, value in loss.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert str(np.random.get_state()) == states[2]  # noqa: NPY002


@pytest.mark.parametrize(
    ("convolution", "safe"),
    [
        (nn.Conv2d(4, 8, 1, stride=2), False),
        (nn.Conv2d(8, 8, 1, stride=2, groups=2), False),
        (nn.Conv2d(8, 8, 1, stride=2), True),
        (nn.Conv2d(4, 8, 1), True),
        (nn.Conv2d(4, 8, 3, stride=2, padding=1), True),
    ],
    ids=["few channels", "few in each group", "enough channels", "not strided", "3x3"],
)
def test_channels_lie_last_only_where_pytorch_s_convolutions_are_safe(convolution: nn.Conv2d, safe: bool):
    x = torch.randn(12, convolution.in_channels, 4, 4, generator=torch.Generator().manual_seed(0))
    y, features = torch.arange(12) % 2, convolution(x).flatten(1).shape[1]

    def model() -> nn.Module:
        return nn.Sequential(copy.deepcopy(convolution), nn.Flatten(), nn.Linear(features, 2))

    made = Task(model=model, train=(x, y), test=(x, y), loss="cross_entropy", batch_size=6, rule="sgd")
    assert made.prepared.conformance.channels_last == safe
