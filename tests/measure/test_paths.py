"""Error barriers of nets with batch norm against state dicts interpolated and statistics taken by hand."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lratlas.measure.paths import Path, arc, barrier, interpolate, path_errors
from lratlas.models.convnet import ConvNet
from lratlas.rng import stream
from lratlas.training.objective import LOSSES
from lratlas.training.program import Strategy, build
from lratlas.training.rules import Rule, sgd, sphere_sgd
from measure.helpers import model_between
from training.helpers import plain_training, point_of, projected, samples_of, trained_parameters

paths = pytest.mark.parametrize("path", [interpolate, arc], ids=["line", "arc"])
POINTS, SIZE, RADIUS = 5, 7, 2.0
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(61, 1, 6, 6, generator=GENERATOR, dtype=torch.float64)
# Classes that can be learned: the third of the image that is brightest.
Y = X.unflatten(2, (3, 2)).mean((1, 3, 4)).argmax(1)
TRAIN, TEST = slice(0, 40), slice(40, 61)


def ends(*, scale_invariant: bool) -> list[nn.Module]:
    """Two nets trained apart from two initial points, with one frozen head if scale-invariant."""
    trained = list[nn.Module]()
    heads = list[nn.Module]()
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = ConvNet(channels=1, classes=3, width=2, scale_invariant=scale_invariant).double()
        heads.append(model.head)
        if scale_invariant:
            model.head = heads[0]  # pyright: ignore[reportAttributeAccessIssue] - a linear layer too
            projected(trained_parameters(model), RADIUS)
        batches = [(X[TRAIN], Y[TRAIN])] * 15
        radius = RADIUS if scale_invariant else None
        trained.append(plain_training(model, lambda own: torch.optim.SGD(own, 0.1), batches, radius=radius))
    return trained


@torch.no_grad()
def with_statistics(model: nn.Module) -> nn.Module:
    """The model with the mean and variance of all values of the batches, of 40 samples in six batches of 7 or 6."""
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    seen: dict[str, list[Tensor]] = {name: [] for name in norms}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _module, inputs: seen[name].append(inputs[0].transpose(0, 1).flatten(1))

    hooks = [norm.register_forward_pre_hook(keep(name)) for name, norm in norms.items()]
    order = torch.from_numpy(stream(0, "statistics").permutation(40))
    for batch in X[TRAIN][order].split([7, 7, 7, 7, 6, 6]):
        model.train()(batch)
    for hook in hooks:
        hook.remove()
    for name, norm in norms.items():
        values = torch.cat(seen[name], 1)
        norm.running_mean, norm.running_var = values.mean(1), values.var(1)
    return model.eval()


@torch.no_grad()
def by_hand(first: nn.Module, last: nn.Module, part: slice, path: Path = interpolate) -> list[float]:
    errors = list[float]()
    for index in range(POINTS):
        between = model_between(first, last, index / (POINTS - 1), turning=path is arc)
        outputs = with_statistics(between)(X[part])
        errors.append(float((outputs.argmax(1) != Y[part]).double().mean()))
    return errors


def found(models: list[nn.Module], rule: Rule, strategy: Strategy, path: Path) -> dict[str, Tensor]:
    first, last = (point_of([model]) for model in models)
    program = build(models[0], LOSSES["cross_entropy"], rule, compiled=False, strategy=strategy)
    sets = {"train": samples_of(X[TRAIN], Y[TRAIN], first), "test": samples_of(X[TEST], Y[TEST], first)}
    return path_errors(
        program, first.weights, last.weights, first.buffers, sets, points=POINTS, batch_size=SIZE, path=path
    )


@pytest.mark.parametrize("strategy", ["stack", "single"])
@pytest.mark.parametrize("rule", [sgd(), sphere_sgd(radius=RADIUS)], ids=["free", "sphere"])
@paths
def test_barriers_of_nets_with_batch_norm_agree_with_a_direct_computation(
    path: Path, rule: Rule, strategy: Strategy
) -> None:
    models = ends(scale_invariant=rule.radius is not None)
    errors = found(models, rule, strategy, path)
    for name, part in (("train", TRAIN), ("test", TEST)):
        expected = by_hand(models[0], models[1], part, path)
        torch.testing.assert_close(errors[name].flatten(), torch.tensor(expected, dtype=torch.float64))
        chords = [expected[0] + (expected[-1] - expected[0]) * i / (POINTS - 1) for i in range(POINTS)]
        height = max(error - chord for error, chord in zip(expected, chords, strict=True))
        assert float(barrier(errors[name])) == pytest.approx(height, abs=1e-12)
    # Nets from two initial points: there is a barrier to be measured.
    assert float(barrier(errors["train"])) > 0.1


@paths
def test_a_path_to_oneself_has_no_barrier_and_the_error_with_pooled_statistics(path: Path) -> None:
    first, _ = ends(scale_invariant=False)
    errors = found([first, copy.deepcopy(first)], sgd(), "stack", path)
    for name, part in (("train", TRAIN), ("test", TEST)):
        assert float(barrier(errors[name])) == 0
        assert errors[name].flatten().tolist() == pytest.approx([by_hand(first, first, part)[0]] * POINTS)
