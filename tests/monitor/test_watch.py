"""`watch` in real loops: it says what happens, and leaves no trace."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import lratlas
from lratlas.errors import LRAtlasError, SpecError
from lratlas.monitor.follow import Watch
from lratlas.monitor.tracker import Look
from lratlas.monitor.watch import watch
from monitor.watch_helpers import Loop, ar1, mlp, plateau, train


def sgd(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr)


def test_the_public_name() -> None:
    assert lratlas.watch is watch


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_training_that_converges(kind: str) -> None:
    model = mlp()
    optimizer = sgd(model, 0.1) if kind == "sgd" else torch.optim.AdamW(model.parameters(), lr=1e-3)
    with watch(optimizer) as seen:
        train(model, optimizer, 700, after=lambda loss, _: seen(loss))
    assert seen.regime == "converging"
    assert seen.steps == 700
    assert "Somewhat higher learning rates" in seen.suggestion()
    assert "one training cannot show" in seen.suggestion()
    last = seen.log[-1]
    assert last.gradient_norm is not None
    assert last.gradient_norm > 0
    assert last.lr == optimizer.param_groups[0]["lr"]


def test_a_training_that_diverges() -> None:
    model = mlp()
    optimizer = sgd(model, 100.0)
    with watch(optimizer, chance_accuracy=0.1) as seen:
        train(model, optimizer, 1000, after=lambda loss, accuracy: seen(loss, accuracy=accuracy))
    assert seen.regime == "diverging"
    assert "accuracy has been at chance" in seen.report()
    assert "Try a lower learning rate first" in seen.report()


def test_a_training_leaves_no_trace_of_being_watched() -> None:
    found = list[tuple[list[torch.Tensor], object, torch.Tensor]]()
    for watched in (False, True):
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        seen = watch(optimizer, average=True) if watched else None
        train(model, optimizer, 150, after=lambda loss, _, seen=seen: seen and seen(loss))
        if seen is not None:
            assert seen.report()
            with seen.averaged():
                pass
            seen.close()
        found.append(([value.detach() for value in model.parameters()], optimizer.state_dict(), torch.get_rng_state()))
    plain, watched = found
    assert all(torch.equal(one, other) for one, other in zip(plain[0], watched[0], strict=True))
    assert str(plain[1]) == str(watched[1])
    assert torch.equal(plain[2], watched[2])


def test_an_equilibrium_is_reported_with_what_to_do() -> None:
    loop = Loop(chance_loss=2.3)
    for loss in plateau():
        loop.step(torch.tensor(loss, requires_grad=True))
    assert loop.watch.regime == "equilibrium"
    text = loop.watch.report()
    assert "step 599: equilibrium" in text  # the last step may get more mini-batches
    assert "stationary since about step 256 at 0.50" in text
    assert "will probably not fall further. Annealing" in text
    assert "gradient norm 1.41" in text  # of (1, 1)


def test_accumulated_losses_count_as_one_step() -> None:
    single, fourfold = Loop(chance_loss=2.3), Loop(chance_loss=2.3)
    for loss in plateau(300):
        single.step(loss)
        for shift in (-0.1, 0.0, 0.0):
            fourfold.watch(loss + shift)
        fourfold.optimizer.step()
        fourfold.watch(loss + 0.1)
    single.watch.close()
    fourfold.watch.close()
    assert fourfold.watch.steps == 300
    # The first micro-batches come before the first step and make their own record
    assert fourfold.watch.log[-1].step == single.watch.log[-1].step + 1 == 301
    assert single.watch.log[-1].loss is not None
    assert fourfold.watch.log[-1].loss == pytest.approx(single.watch.log[-1].loss, rel=0.01)


def test_steps_that_a_grad_scaler_skips_do_not_count() -> None:
    loop = Loop(chance_loss=2.3)
    for at, loss in enumerate(plateau(400)):
        if at % 2:
            loop.watch(1e9)  # an overflow: the scaler does not let the optimizer step
            loop.watch(-1e9 + 2 * loss)
        else:
            loop.step(loss)
    loop.watch.close()
    assert loop.watch.steps == 200
    assert loop.watch.log[-1].step == 200
    assert loop.watch.log[-1].loss == pytest.approx(0.5, rel=0.05)


def test_losses_given_at_every_tenth_step_stand_for_ten() -> None:
    loop = Loop(chance_loss=2.3)
    for at, loss in enumerate(plateau(1000)):
        if at % 10:
            loop.optimizer.step()
        else:
            loop.step(loss)
    loop.watch.close()
    assert loop.watch.log[-1].step == pytest.approx(1000, abs=10)


def test_a_loss_that_is_not_finite_is_divergence() -> None:
    changes = list[Look]()
    loop = Loop(on_change=changes.append)
    for loss in [0.5, 0.4, *[float("nan")] * 40]:
        loop.step(torch.tensor(loss))
    assert [look.regime for look in changes] == ["diverging"]
    assert "not finite" in loop.watch.report()


def test_a_change_of_any_groups_learning_rate_begins_anew() -> None:
    loop = Loop(groups=2, chance_loss=2.3)
    for loss in plateau():
        loop.step(loss)
    loop.optimizer.param_groups[1]["lr"] *= 1.2
    loop.step(0.5)
    assert "equilibrium" in loop.watch.report()
    loop.optimizer.param_groups[1]["lr"] *= 0.1
    loop.step(0.5)
    assert "undecided" in loop.watch.report()
    assert loop.watch.regime == loop.watch.log[-1].regime == "undecided"
    rates = [group["lr"] for group in loop.optimizer.param_groups]
    assert rates == pytest.approx([0.1, 0.01 * 1.2 * 0.1])


def test_a_warm_up_begins_anew_until_it_is_over() -> None:
    loop = Loop(chance_loss=2.3)
    for at, loss in enumerate(plateau(1500)):
        loop.optimizer.param_groups[0]["lr"] = 0.1 * min(at / 640, 1)
        loop.step(loss)
    decided = [look for look in loop.watch.log if look.regime != "undecided"]
    assert decided
    assert all(look.lr == pytest.approx(0.1, rel=0.25) for look in decided)


def test_averaged_weights_come_and_go_without_a_trace() -> None:
    model = nn.Sequential(mlp(), nn.BatchNorm1d(10))
    optimizer = sgd(model, 0.1)
    seen = watch(optimizer, model=model, average=True)
    train(model, optimizer, 200, after=lambda loss, _: seen(loss))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    places = [value.data_ptr() for value in model.parameters()]

    def fail() -> float:
        if not torch.equal(model.get_parameter("0.0.weight"), before["0.0.weight"]):
            model(torch.randn(8, 64))  # moves the batch norm's statistics
            raise ZeroDivisionError
        return 0.0

    with pytest.raises(ZeroDivisionError):
        seen.ahead(fail)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [value.data_ptr() for value in model.parameters()] == places


def test_the_average_weighs_the_recent_weights_most() -> None:
    loop = Loop(average=True)
    taken = list[float]()
    for at in range(320):
        loop.step(0.5)
        if (at + 1) % 32 == 0:
            taken.append(float(loop.weights[0][0].detach()))
    # The t-th of them weighs as (t + 1)(t + 2)(t + 3), but that the first is what the average begins with
    parts = [4 / (t + 3) for t in range(1, 11)]
    expected = taken[0]
    for part, value in zip(parts[1:], taken[1:], strict=True):
        expected = (1 - part) * expected + part * value
    weights = [t * (t + 1) * (t + 2) for t in range(1, 11)]
    assert expected == pytest.approx(sum(w * v for w, v in zip(weights, taken, strict=True)) / sum(weights))
    with loop.watch.averaged():
        assert float(loop.weights[0][0].detach()) == pytest.approx(expected, rel=1e-5)


def test_how_far_the_average_is_ahead() -> None:
    loop = Loop(average=True)
    for _ in range(64):
        loop.step(0.5)
    found = loop.watch.ahead(lambda: float(loop.weights[0][0].detach()))
    assert found.current == pytest.approx(-6.4)
    # After 32 and 64 steps of -0.1, the second with a weight of 4/5
    assert found.averaged == pytest.approx(0.2 * -3.2 + 0.8 * -6.4)
    assert found.difference == pytest.approx(found.averaged - found.current)


def test_the_optimizer_may_not_step_on_averaged_weights() -> None:
    loop = Loop(average=True)
    for _ in range(32):
        loop.step(0.5)
    kept = loop.weights[0].detach().clone()
    with pytest.raises(LRAtlasError, match="inside averaged"), loop.watch.averaged():
        loop.step(0.5)
    assert torch.equal(loop.weights[0], kept)
    loop.step(0.5)


def test_averages_that_are_not_there_are_named() -> None:
    with pytest.raises(LRAtlasError, match="average=True"), Loop().watch.averaged():
        pass
    with pytest.raises(LRAtlasError, match="no weight average yet"), Loop(average=True).watch.averaged():
        pass


def test_weights_of_half_precision_come_back_exactly() -> None:
    weight = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    seen = watch(optimizer, average=True)
    for _ in range(80):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        seen(0.5)
    kept = weight.detach().clone()
    with seen.averaged():
        assert weight.dtype == torch.bfloat16
        assert not torch.equal(weight, kept)
    assert torch.equal(weight, kept)


def test_a_watch_goes_on_in_another_process(tmp_path: Path) -> None:
    losses = plateau(900)
    whole, first, second = (Loop(chance_loss=2.3, average=True) for _ in range(3))
    for loss in losses:
        whole.step(loss)
    for loss in losses[:512]:
        first.step(loss)
    torch.save({"watch": first.watch.state_dict(), "weight": first.weights[0].detach()}, tmp_path / "kept.pt")
    kept = torch.load(tmp_path / "kept.pt", weights_only=True)
    with torch.no_grad():
        second.weights[0].copy_(kept["weight"])
    second.watch.load_state_dict(kept["watch"])
    for loss in losses[512:]:
        second.step(loss)
    assert second.watch.steps == 900
    assert second.watch.regime == whole.watch.regime == "equilibrium"
    assert [look.step for look in second.watch.log] == pytest.approx([look.step for look in whole.watch.log], abs=2)
    with whole.watch.averaged(), second.watch.averaged():
        assert torch.equal(whole.weights[0], second.weights[0])


def test_a_state_of_other_weights_or_something_else_is_refused() -> None:
    other = Loop(groups=2, average=True)
    for _ in range(32):
        other.step(0.5)
    with pytest.raises(SpecError, match="other shapes"):
        Loop(average=True).watch.load_state_dict(other.watch.state_dict())
    with pytest.raises(SpecError, match="'a'"):
        Loop().watch.load_state_dict({"a": 1})


def pickled(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return pickle.loads(pickle.dumps(optimizer))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_copies_of_the_optimizer_are_not_watched(
    copied: Callable[[torch.optim.Optimizer], torch.optim.Optimizer],
) -> None:
    loop = Loop()
    loop.step(0.5)
    copied(loop.optimizer).step()
    assert loop.watch.steps == 1
    loop.optimizer.load_state_dict(loop.optimizer.state_dict())
    loop.step(0.5)
    assert loop.watch.steps == 2


def test_closed_it_counts_no_more() -> None:
    loop = Loop()
    loop.step(0.5)
    loop.watch.close()
    loop.watch.close()
    loop.optimizer.step()
    assert loop.watch.steps == 1


def test_the_log_is_json_lines(tmp_path: Path) -> None:
    loop = Loop(chance_loss=2.3)
    for loss in [*plateau(), *[float("nan")] * 40]:
        loop.step(loss)
    loop.watch.write_log(tmp_path / "log.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [Look(**row) for row in rows] == loop.watch.log
    assert [row["regime"] for row in rows][-2:] == ["equilibrium", "diverging"]


def test_before_the_first_look_there_is_nothing_to_report() -> None:
    seen: Watch = Loop().watch
    assert "too few losses" in seen.report()
    assert (seen.suggestion(), seen.regime, seen.log) == ("", "undecided", [])


@pytest.mark.parametrize(("far", "words"), [(0.0, "far too low"), (5.0, "far too high")])
def test_a_loss_that_rests_at_chance_is_named(far: float, words: str) -> None:
    loop = Loop(chance_loss=2.3)
    for at, noise in enumerate((0.05 * ar1(400, 0.0, 0)).tolist()):
        loop.step(2.35 + noise + (far if at < 20 else 0.0))
    assert words in loop.watch.report()


def test_a_loss_of_several_numbers_is_refused() -> None:
    with pytest.raises(SpecError, match=r"shape \(3,\)"):
        Loop().watch(torch.zeros(3))


def test_an_accuracy_needs_the_accuracy_of_chance() -> None:
    with pytest.raises(SpecError, match="chance_accuracy"):
        Loop().watch(0.5, accuracy=0.5)


def test_losses_that_are_finite_again_are_logged_and_told() -> None:
    changes = list[Look]()
    loop = Loop(on_change=changes.append)
    loop.steps([0.5] * 10 + [float("nan")] * 10 + [0.5] * 100)
    assert [look.regime for look in changes] == ["diverging", "undecided"]
    assert loop.watch.regime == loop.watch.log[-1].regime == "undecided"
    assert "too few losses to judge since step" in loop.watch.report()


def test_a_state_of_an_earlier_version_is_refused_by_name() -> None:
    state = Loop().watch.state_dict()
    old = {name: state[name] for name in ("tracker", "steps", "log", "average")} | {"lrs": [0.1]}
    with pytest.raises(SpecError, match="States of earlier versions"):
        Loop().watch.load_state_dict(old)


def test_a_state_replaces_that_of_a_watch_in_use() -> None:
    used, fresh = Loop(), Loop()
    used.steps(plateau(400))
    used.steps(plateau(100), lambda _: 0.01)
    fresh.steps(plateau(300))
    used.watch.load_state_dict(fresh.watch.state_dict())
    assert used.watch.log == fresh.watch.log
    assert used.watch.report() == fresh.watch.report()
