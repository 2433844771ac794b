from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from lratlas.data.shapes import SHAPES, boundary_distance
from lratlas.data.ticks import TickData, dirichlet_weights, ticks
from lratlas.errors import TaskError


def small(seed: int, **changes: Any) -> TickData:
    sizes: dict[str, Any] = {"train": 40, "test": 20, "features": 3, "single": 10}
    return ticks(seed=seed, **(sizes | changes))


def points(x: Tensor, feature: int) -> NDArray[np.float32]:
    return x[:, 2 * feature : 2 * feature + 2].numpy()


def outside_tick(x: Tensor, feature: int) -> Tensor:
    """The paper's class rule: 1 outside the two curves."""
    first, second = x[:, 2 * feature].double().abs(), x[:, 2 * feature + 1].double()
    return ((second < first - 2) | (second > first)).float()


def on_curve(x: Tensor, feature: int) -> NDArray[np.bool_]:
    first, second = np.abs(points(x, feature).T[0]), points(x, feature).T[1]
    return np.minimum(np.abs(second - first), np.abs(second - first + 2)) < 1e-5


def independent(left: NDArray[np.bool_], right: NDArray[np.bool_]) -> bool:
    # Independent flags agree half of the time where one of them is true for half of the samples.
    return bool(stats.binomtest(int((left == right).sum()), len(left)).pvalue > 1e-3)


def parts(data: TickData) -> dict[str, Tensor]:
    sets = {"train": data.train, "test": data.test, "singles": data.singles}
    return {f"{name} {side}": part[i] for name, part in sets.items() for i, side in enumerate("xy")}


def changed(one: TickData, other: TickData) -> set[str]:
    before, after = parts(one), parts(other)
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_default_sizes_types_and_balance():
    data = ticks(seed=1)
    sizes = {name: tuple(part.shape) for name, part in parts(data).items()}
    assert sizes == {
        "train x": (512, 32),
        "train y": (512,),
        "test x": (2000, 32),
        "test y": (2000,),
        "singles x": (16, 1000, 32),
        "singles y": (16, 1000),
    }
    assert {part.dtype for part in parts(data).values()} == {torch.float32}
    assert data.train[1].sum() == 256
    assert data.test[1].sum() == 1000
    assert data.singles[1].sum(dim=1).tolist() == [500.0] * 16
    assert set(data.train[1].tolist()) == {0.0, 1.0}


def test_labels_are_shuffled():
    labels = ticks(seed=1, features=1).test[1]
    # Runs of equal labels are about half as many as samples when the order is random.
    runs = int((labels[1:] != labels[:-1]).sum())
    assert 900 < runs < 1100


def test_every_informative_feature_separates_the_classes_with_a_margin():
    data = ticks(seed=2, train=200, test=200, features=4, single=2)
    for x, y in (data.train, data.test):
        for feature in range(4):
            assert torch.equal(outside_tick(x, feature), y)
            assert boundary_distance(SHAPES["tick"], points(x, feature)).min() >= 0.1


@pytest.mark.parametrize("shape", list(SHAPES))
def test_every_shape_separates_alone_and_single_sets_have_one_informative_feature(shape: str):
    data = ticks(seed=3, shape=shape, train=20, test=20, features=3, single=60)
    for target in range(3):
        x, y = data.singles[0][target], data.singles[1][target]
        for feature in range(3):
            distance = boundary_distance(SHAPES[shape], points(x, feature))
            if feature == target:
                np.testing.assert_array_equal(SHAPES[shape].is_one(points(x, feature)), y.numpy() == 1)
                assert distance.min() >= 0.1
            else:
                assert distance.max() < 1e-6


def test_utilities_are_the_shares_of_informative_samples():
    utilities = (0.0, 0.3, 0.8, 1.0)
    data = ticks(seed=4, train=2000, test=2000, features=4, single=2, utilities=utilities)
    for x, y in (data.train, data.test):
        for feature, utility in enumerate(utilities):
            informative = ~on_curve(x, feature)
            assert stats.binomtest(int(informative.sum()), len(x), utility).pvalue > 1e-3
            labels = outside_tick(x, feature)[torch.from_numpy(informative)]
            assert torch.equal(labels, y[torch.from_numpy(informative)])


def test_uninformative_points_do_not_depend_on_the_label():
    data = ticks(seed=5, train=2, test=4000, features=2, single=2, utilities=0.0)
    x, y = data.test
    for feature in range(2):
        (first, second), one = points(x, feature).T, y.numpy() == 1
        assert stats.kstest(first[one], first[~one]).pvalue > 1e-3
        assert independent(second > np.abs(first) - 1, one)


def test_which_features_are_informative_is_independent_between_features_and_of_the_label():
    x, y = ticks(seed=6, train=4000, test=2, features=2, single=2, utilities=0.5).train
    left, right, one = on_curve(x, 0), on_curve(x, 1), y.numpy() == 1
    assert independent(left, right)
    assert independent(left, one)
    assert independent(right, one)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_data():
    assert changed(small(7), small(7)) == set()
    assert changed(small(7), small(8)) == set(parts(small(7)))
    assert changed(small(0), small(2**64 - 1))


@pytest.mark.parametrize(
    ("change", "affected"),
    [
        ({"train": 60}, {"train x", "train y"}),
        ({"test": 60}, {"test x", "test y"}),
        ({"single": 60}, {"singles x", "singles y"}),
        ({"utilities": 0.5}, {"train x", "test x"}),
        ({"label_noise": 0.5}, {"train x"}),
    ],
)
def test_a_change_of_one_part_leaves_the_others_alone(change: dict[str, Any], affected: set[str]):
    assert changed(small(9), small(9, **change)) == affected


def test_features_sets_and_splits_share_no_points():
    data = small(10)
    sets = [data.train[0], data.test[0], *data.singles[0]]
    rows = torch.cat([x[:, 2 * i : 2 * i + 2] for x in sets for i in range(3)])
    assert len(torch.unique(rows, dim=0)) == len(rows)


def test_more_features_keep_the_first_ones():
    wide = small(11, features=5)
    assert torch.equal(small(11).train[0], wide.train[0][:, :6])


def test_label_noise_swaps_pairs_of_both_classes_in_training_only():
    shares = (0.0, 0.25, 1.0)
    clean = ticks(seed=12, train=200, test=100, features=3, single=10)
    noisy = ticks(seed=12, train=200, test=100, features=3, single=10, label_noise=shares)
    (x, y), clean_x = noisy.train, clean.train[0]
    for feature, share in enumerate(shares):
        wrong = outside_tick(x, feature) != y
        assert int(wrong.sum()) == 200 * share
        assert int((wrong & (y == 1)).sum()) == 100 * share
        # The values are the same ones, in another order.
        order = [torch.unique(part[:, 2 * feature : 2 * feature + 2], dim=0) for part in (x, clean_x)]
        assert torch.equal(*order)
        # A sample that is not swapped keeps its point.
        kept = (x[:, 2 * feature] == clean_x[:, 2 * feature]) & (x[:, 2 * feature + 1] == clean_x[:, 2 * feature + 1])
        assert torch.equal(kept, ~wrong)


def test_label_noise_draws_other_samples_in_every_feature():
    x, y = ticks(seed=13, train=400, test=2, features=2, single=2, label_noise=0.5).train
    left, right = (outside_tick(x, feature) != y for feature in range(2))
    assert 60 < int((left & right).sum()) < 140  # a hundred on average


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": "star"}, "shape must be one of tick, circles, .*, union_jack, but it is 'star'"),
        ({"utilities": 1.1}, r"utilities must be in \[0, 1\], but it contains 1.1"),
        ({"utilities": [1.0, -0.1, 0.5]}, r"utilities must be in \[0, 1\], but it contains -0.1"),
        ({"utilities": float("nan")}, "utilities must be"),
        ({"utilities": [1.0, 1.0]}, r"utilities must be one number or one per feature \(3\)"),
        ({"label_noise": -0.5}, r"label_noise must be in \[0, 1\]"),
        ({"label_noise": [0.5] * 4}, "label_noise must be one number or one per feature"),
        ({"margin": -0.1}, "margin must be at least 0"),
        ({"margin": 1.0}, "margin must be .* below 0.78 for shape 'tick'"),
        ({"train": 0}, "train must be an even number of samples, at least 2, but it is 0"),
        ({"test": 1}, "test must be an even number"),
        ({"single": -2}, "single must be an even number"),
        ({"train": 51}, "train must be an even number of samples, at least 2, but it is 51"),
        ({"features": 0}, "features must be at least 1"),
        ({"seed": -1}, "seed must be an integer from 0"),
        ({"seed": 2**64}, "seed must be an integer from 0"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, Any], message: str):
    with pytest.raises(TaskError, match=message):
        small(**({"seed": 1} | arguments))


def matrix(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def redrawn_shares(weight: Tensor, result: Tensor) -> Tensor:
    """Shares of the sum of the redrawn singular values along the singular directions of ``weight``."""
    left, _, right = torch.linalg.svd(weight, full_matrices=False)
    values = (left.T @ result @ right.T).diagonal()
    return values / values.sum()


@settings(max_examples=30)
@given(
    rows=st.integers(1, 7),
    columns=st.integers(1, 7),
    alpha=st.floats(1e-6, 1e6),
    seed=st.integers(0, 1000),
)
def test_dirichlet_keeps_the_norm_and_the_singular_vectors(rows: int, columns: int, alpha: float, seed: int):
    weight = matrix(rows, columns, seed)
    before = weight.clone()
    result = dirichlet_weights(weight, alpha=alpha, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(weight, before)
    assert result.shape == weight.shape
    torch.testing.assert_close(result.norm(), weight.norm())
    left, _, right = torch.linalg.svd(weight, full_matrices=False)
    inner = left.T @ result @ right.T
    tolerance = 1e-9 * float(weight.norm())
    torch.testing.assert_close(inner, inner.diagonal().diag(), atol=tolerance, rtol=0)
    assert inner.diagonal().min() >= -tolerance


def test_dirichlet_shares_have_the_mean_and_variance_of_the_distribution():
    weight, alpha, size = matrix(6, 4, 0), 0.7, 4
    generator = torch.Generator().manual_seed(0)
    draws = [dirichlet_weights(weight, alpha=alpha, generator=generator) for _ in range(2000)]
    shares = torch.stack([redrawn_shares(weight, draw) for draw in draws])
    variance = (size - 1) / (size**2 * (size * alpha + 1))
    torch.testing.assert_close(shares.mean(dim=0), torch.full((4,), 0.25).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(shares.var(dim=0), torch.full((4,), variance).double(), atol=0, rtol=0.1)


@pytest.mark.parametrize(
    ("alpha", "low", "high"),
    # The share of the largest of eight singular values; equal ones have 1 / 8 each.
    [(1e-8, 0.999, 1.0), (1e-3, 0.9, 1.0), (1e6, 0.125, 0.13)],
)
def test_a_small_alpha_gives_low_rank_and_a_large_one_equal_values(alpha: float, low: float, high: float):
    weight = matrix(8, 8, 1)
    generator = torch.Generator().manual_seed(2)
    draws = [dirichlet_weights(weight, alpha=alpha, generator=generator) for _ in range(21)]
    tops = torch.stack([redrawn_shares(weight, draw).max() for draw in draws])
    assert low - 1e-9 <= float(tops.median()) <= high + 1e-9


def test_dirichlet_is_fixed_by_its_generator_and_keeps_the_type():
    weight = matrix(5, 3, 3).float().requires_grad_()
    one, again, other = (
        dirichlet_weights(weight, alpha=1.0, generator=torch.Generator().manual_seed(seed)) for seed in (4, 4, 5)
    )
    assert one.dtype == torch.float32
    assert not one.requires_grad
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(dirichlet_weights(torch.zeros(2, 3), alpha=1.0, generator=torch.Generator()), torch.zeros(2, 3))


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_dirichlet_refuses_an_alpha_that_is_not_positive(alpha: float):
    with pytest.raises(TaskError, match=r"alpha must be a finite number above 0"):
        dirichlet_weights(torch.eye(2), alpha=alpha, generator=torch.Generator())


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.ones(3), r"must be a matrix .*\(3,\)"),
        (torch.ones(0, 3), r"must be a matrix .*\(0, 3\)"),
        (torch.tensor([[1.0, float("nan")]]), "only finite numbers"),
    ],
)
def test_dirichlet_refuses_what_is_no_finite_matrix(weight: Tensor, message: str):
    with pytest.raises(TaskError, match=message):
        dirichlet_weights(weight, alpha=1.0, generator=torch.Generator())
