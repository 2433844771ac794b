"""Which strategy is chosen, where one is faster by far or the other cannot be."""

import pytest
import torch
from torch import Tensor, nn

from lratlas.models.mlp import MLP
from lratlas.stacks import strategy as choice
from lratlas.stacks.strategy import faster_strategy
from lratlas.task import Task
from lratlas.training.prepared import Prepared
from lratlas.training.trainer import train_stack

X = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
Y = torch.arange(64) % 2


def task(model: type[nn.Module] | None = None) -> Prepared:
    return Task(
        model=model or (lambda: MLP(32, (32, 32), 2, scale_invariant=True)),
        train=(X, Y),
        test=(X, Y),
        batch_size=16,
        rule="sgd" if model else "sphere_sgd",
    ).prepared


class Undecided(nn.Module):
    """What it does depends on the values that it sees, which vmap cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.linear(x)
        return outputs if float(outputs.detach().sum()) > 0 else 2 * outputs


def attention(heads: Tensor) -> Tensor:
    return nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)


class Attentive(nn.Module):
    """Causal attention, for which PyTorch has no batching rule on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.inner(x.view(-1, 4, 8)).view(-1, 4, 2, 4).transpose(1, 2)
        return self.outer(attention(heads).transpose(1, 2).reshape(-1, 4, 8).mean(1))


@pytest.mark.filterwarnings("error")
def test_pytorch_does_not_warn_of_what_is_measured_but_later_it_does() -> None:
    assert faster_strategy(task(Attentive), device="cpu", dtype="float32") in {"stack", "single"}
    heads = torch.randn(3, 2, 2, 4, 4)
    with pytest.raises(UserWarning, match="performance drop"):
        torch.func.vmap(attention)(heads)


def test_a_small_mlp_is_stacked_for_its_steps_are_overhead_and_generators_stay() -> None:
    made = task()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert faster_strategy(made, device="cpu", dtype="float32") == "stack"
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_that_cannot_be_stacked_is_trained_one_run_at_a_time() -> None:
    before = torch.get_rng_state()
    assert faster_strategy(task(Undecided), device="cpu", dtype="float32") == "single"
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("stacked", "alone", "chosen"), [(0.15, 0.05, "stack"), (0.19, 0.05, "single")])
def test_a_stack_must_be_faster_by_a_fifth_than_as_many_runs_alone(
    stacked: float, alone: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        """A step takes what it is said to: four lanes, as many as fit into the time for a comparison, or one."""

        now = 0.0

        def process_time(self) -> float:
            return self.now

    clock, train = Clock(), train_stack

    def timed(*arguments: object, lrs: Tensor, **others: object) -> object:
        clock.now += stacked if lrs.shape[1] == 4 else alone
        return train(*arguments, lrs=lrs, **others)  # pyright: ignore[reportArgumentType, reportCallIssue] - passed on

    monkeypatch.setattr(choice, "time", clock)
    monkeypatch.setattr(choice, "train_stack", timed)
    assert faster_strategy(task(), device="cpu", dtype="float32") == chosen
