"""A run's sharpness against explicit Hessians and sums over labels, and the laws it obeys."""

import copy
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lratlas.errors import SpecError
from lratlas.measure.curvature import Sharpness, hutchinson_trace, mean_slopes, sharpness_measure
from lratlas.measure.hessian import copy_for_hessian, mini_batches, outputs_of, vector_of
from lratlas.training.objective import objective_of
from lratlas.training.rules import sgd, sphere_sgd
from measure.cases import (
    MODELS,
    REFERENCE,
    SIZES,
    WITHOUT_BATCH_NORM,
    Options,
    case,
    cut,
    exact_fisher_trace,
    explicit_hessian,
    flat_gradient,
    known_hessian,
    mean_loss,
    prepared,
)
from training.helpers import lane, point_of, samples_of


@pytest.mark.parametrize("name", WITHOUT_BATCH_NORM)
def test_how_samples_are_cut_matters_only_to_batch_norm(name: str) -> None:
    given = case(name)
    products = [given.product(cut(given, *sizes))[0] for sizes in SIZES]
    direction = torch.ones_like(vector_of(given.weights))
    for product in products[1:]:
        torch.testing.assert_close(product(direction), products[0](direction), rtol=1e-9, atol=1e-12)
    whole, parts = (given.measure(sgd(), batch_size=size) for size in (13, 5))
    for field in ("top_eigenvalue", "trace", "trace_error", "train_loss"):
        assert getattr(whole, field) == pytest.approx(getattr(parts, field), rel=1e-9)
    joined = case("batch norm")
    directions = torch.ones_like(vector_of(joined.weights))
    one, other = (joined.product(cut(joined, *sizes))[0](directions) for sizes in SIZES[:2])
    assert (one - other).norm() > 0.01 * one.norm()


def test_a_loss_linear_in_the_weights_has_no_curvature() -> None:
    def score(outputs: Tensor, targets: Tensor) -> Tensor:
        return -(outputs[:, 0] * targets)

    model = nn.Linear(30, 1).double()
    point = point_of([model])
    x = torch.randn(7, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = samples_of(x, x[:, 0], point)
    measure = sharpness_measure(model, objective_of(score, model(x), x[:, 0]), sgd(), batch_size=3)
    found = measure(lane(point.weights, 0), {}, samples, 0)
    assert (found.top_eigenvalue, found.residual, found.converged, found.trace, found.trace_error) == (0, 0, True, 0, 0)
    assert found.gradient_norm > 0
    assert math.isnan(found.fisher_trace)


@pytest.mark.parametrize("name", MODELS)
def test_a_run_is_measured_as_by_the_explicit_hessian(name: str) -> None:
    given = case(name)
    batches = given.of(seed=3, batch_size=5)
    assert sorted(len(y) for _, y in batches) == [4, 4, 5]
    matrix, module = explicit_hessian(given, batches), prepared(given)
    found = given.measure(sgd(), tolerance=1e-6, probes=40)
    assert found.converged
    assert found.residual <= 1e-6
    assert found.top_eigenvalue == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-6)
    assert 0 < found.trace_error < float(matrix.norm())
    assert abs(found.trace - float(matrix.trace())) < 5 * found.trace_error
    loss = REFERENCE[given.objective.name]
    norms = [float(flat_gradient(loss(module(x), y), module).norm()) * len(y) / 13 for x, y in batches]
    assert found.gradient_norm == pytest.approx(sum(norms), rel=1e-9)
    assert found.train_loss == pytest.approx(float(mean_loss(module, given, batches).detach()), rel=1e-9)


@pytest.mark.parametrize("name", ["layer norm, frozen head", "binary", "batch norm"])
def test_the_fisher_trace_is_the_sum_over_labels(name: str) -> None:
    given = case(name)
    batches = cut(given, 5, 5, 3)
    frozen = {name: value[0] for name, value in given.samples.frozen.items()}
    outputs = outputs_of(copy_for_hessian(given.module), given.weights, {**frozen, **given.buffers})
    drawn = [
        mean_slopes(outputs, given.objective, vector_of(given.weights), batches, draws=15, seed=seed).fisher_trace
        for seed in range(20)
    ]
    error = float(np.std(drawn, ddof=1)) / math.sqrt(len(drawn))
    expected = exact_fisher_trace(given, batches)
    assert error < 0.1 * expected
    assert abs(float(np.mean(drawn)) - expected) < 4 * error


def test_random_signs_give_the_trace_of_a_diagonal_matrix_exactly() -> None:
    diagonal = torch.arange(-3, 30, dtype=torch.float64)
    found = hutchinson_trace(lambda v: diagonal * v, diagonal, probes=5, seed=0)
    assert found.value == float(diagonal.sum())
    assert found.error == 0


def test_the_error_of_a_trace_is_what_repetitions_scatter_by() -> None:
    draws = torch.randn(40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = draws + draws.T
    found = [hutchinson_trace(lambda v: matrix @ v, matrix[0], probes=20, seed=seed) for seed in range(60)]
    values = np.array([each.value for each in found])
    # Var zᵀHz = 2 Σ_{i≠j} H_ij² for signs z.
    error = math.sqrt(2 * float((matrix - matrix.diag().diag()).square().sum()) / 20)
    assert np.mean([each.error for each in found]) == pytest.approx(error, rel=0.15)
    assert np.std(values) == pytest.approx(error, rel=0.4)
    assert abs(values.mean() - float(matrix.trace())) < 4 * error / math.sqrt(60)


def test_at_unit_norm_the_scale_of_the_weights_does_not_matter() -> None:
    given = case("layer norm, frozen head")
    found: list[Sharpness] = []
    for factor in (0.5, 1.0, 20.0):
        weights = {name: factor * value for name, value in given.weights.items()}
        found.append(replace(given, weights=weights).measure(sphere_sgd(radius=2.0), tolerance=1e-8))
    size = vector_of(given.weights).norm()
    unit = replace(given, weights={name: value / size for name, value in given.weights.items()})
    found.append(unit.measure(sgd(), tolerance=1e-8))
    for field in ("top_eigenvalue", "trace", "trace_error", "fisher_trace", "gradient_norm", "train_loss"):
        values = [getattr(each, field) for each in found]
        # What the layer norms' eps is good for.
        assert values == pytest.approx([values[2]] * 4, rel=1e-4)
    assert given.measure(sgd()).top_eigenvalue != pytest.approx(found[0].top_eigenvalue, rel=0.5)


def test_parameters_off_the_sphere_are_taken_for_fixed() -> None:
    given = case("binary")
    free = tuple(name for name in given.weights if name.endswith("bias"))
    one = given.measure(sphere_sgd(other_lr=0.1, free=free))
    kept = {name: value for name, value in given.weights.items() if name not in free}
    frozen = {name: given.weights[name][None] for name in free}
    samples = replace(given.samples, frozen=frozen)
    assert replace(given, weights=kept, samples=samples).measure(sphere_sgd()) == one


@pytest.mark.parametrize("name", ["tanh", "batch norm"])
def test_single_precision_is_near_double(name: str) -> None:
    double = case(name)
    samples = double.samples
    single = replace(
        double,
        weights={name: value.float() for name, value in double.weights.items()},
        buffers={name: value.float() if value.is_floating_point() else value for name, value in double.buffers.items()},
        samples=replace(
            samples,
            x=samples.x.float(),
            y=samples.y.float() if samples.y.is_floating_point() else samples.y,
            shares=samples.shares.float(),
            frozen={name: value.float() for name, value in samples.frozen.items()},
        ),
    )
    exact, found = double.measure(sgd()), single.measure(sgd())
    assert found.converged
    assert found.top_eigenvalue == pytest.approx(exact.top_eigenvalue, rel=1e-4)
    for field in ("trace", "fisher_trace", "gradient_norm", "train_loss"):
        assert getattr(found, field) == pytest.approx(getattr(exact, field), rel=1e-3, nan_ok=True)


def test_what_does_not_converge_says_so() -> None:
    torch.manual_seed(0)
    spectrum = torch.linspace(0, 3, 400, dtype=torch.float64)
    given = known_hessian(spectrum)
    found = given.measure(sgd(), batch_size=90, tolerance=1e-7, iterations=1)
    assert not found.converged
    assert 1e-7 < found.residual < 0.5
    # The Ritz value is none above the spectrum, and an eigenvalue is as near as the residual says.
    assert 1.5 < found.top_eigenvalue < 3
    assert float((spectrum - found.top_eigenvalue).abs().min()) <= found.residual * found.top_eigenvalue
    # It is good enough for whom asks for no more.
    assert given.measure(sgd(), batch_size=90, tolerance=3 * found.residual, iterations=1).converged
    patient = given.measure(sgd(), batch_size=90, tolerance=1e-7, iterations=500)
    assert patient.converged
    assert patient.top_eigenvalue == pytest.approx(3, rel=1e-9)
    # Random signs know the trace of a diagonal matrix.
    assert patient.trace == pytest.approx(600, rel=1e-9)
    assert patient.trace_error == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", MODELS)
def test_weights_that_are_not_finite_have_no_sharpness(name: str, value: float) -> None:
    given = case(name)
    next(iter(given.weights.values())).fill_(value)
    found = given.measure(sgd())
    assert not found.converged
    assert all(math.isnan(each) for each in (found.top_eigenvalue, found.residual, found.trace, found.trace_error))


def test_a_limit_takes_some_of_the_samples() -> None:
    given = case("tanh")
    rows = torch.cat(mini_batches(given.samples, batch_size=20, seed=3, limit=6).parts)
    assert len(rows.unique()) == 6
    fewer = replace(given, samples=replace(given.samples, x=given.samples.x[:, rows], y=given.samples.y[:, rows]))
    limited = given.measure(sgd(), batch_size=20, limit=6)
    assert limited.train_loss == pytest.approx(fewer.measure(sgd(), batch_size=20).train_loss, rel=1e-12)
    assert limited.top_eigenvalue == pytest.approx(fewer.measure(sgd(), batch_size=20).top_eigenvalue, rel=1e-9)


@pytest.mark.parametrize("name", ["batch norm", "layer norm, frozen head"])
def test_nothing_is_changed_and_the_seed_decides(name: str) -> None:
    given = case(name)
    given.module[0].eval() if isinstance(given.module, nn.Sequential) else given.module.train()
    modes = [part.training for part in given.module.modules()]
    kept = copy.deepcopy((given.weights, given.buffers, given.samples.x, given.samples.frozen))
    state = copy.deepcopy(given.module.state_dict())
    generators = (torch.get_rng_state(), repr(tuple(np.random.get_state())), random.getstate())  # noqa: NPY002 - the global one is what is watched
    first = given.measure(sgd())
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert (repr(tuple(np.random.get_state())), random.getstate()) == generators[1:]  # noqa: NPY002 - see above
    assert [part.training for part in given.module.modules()] == modes
    for now, then in zip((given.weights, given.buffers, given.samples.frozen), (*kept[:2], kept[3]), strict=True):
        assert now.keys() == then.keys()
        assert all(torch.equal(value, then[key]) and not value.requires_grad for key, value in now.items())
    assert torch.equal(given.samples.x, kept[2])
    for key, value in given.module.state_dict().items():
        assert torch.equal(value, state[key])
    assert all(parameter.grad is None for parameter in given.module.parameters())
    assert given.measure(sgd()) == first
    other = given.measure(sgd(), seed=4)
    assert other.trace != first.trace
    assert other.fisher_trace != first.fisher_trace


def test_one_function_serves_many_runs() -> None:
    given = case("batch norm")
    measure = sharpness_measure(given.module, given.objective, sgd(), batch_size=5)
    other = {name: value + 0.1 for name, value in given.weights.items()}
    first = measure(given.weights, given.buffers, given.samples, 3)
    assert measure(other, given.buffers, given.samples, 3) != first
    assert measure(given.weights, given.buffers, given.samples, 3) == first == given.measure(sgd())


@pytest.mark.parametrize(
    "options",
    [
        Options(batch_size=0),
        Options(limit=0),
        Options(probes=1),
        Options(draws=0),
        Options(iterations=0),
        Options(tolerance=0.0),
        Options(tolerance=1.0),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_named(options: Options) -> None:
    ((name, value),) = options.items()
    with pytest.raises(SpecError, match=f"Sharpness: {name} is {value}, but must be"):
        case("tanh").measure(sgd(), **options)
