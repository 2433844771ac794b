"""The initial LR as the sampler of an Optuna study.

In this folder:  python optuna_study.py
"""

from pathlib import Path
from typing import Any

import optuna
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lratlas.data import digits
from lratlas.integrations.optuna import LRSampler
from lratlas.search.segments import Segment, make_segment

STEPS = 800  # of a full training
FOLDER = Path("optuna-search")
STUDY = f"sqlite:///{FOLDER}/study.db"
LOSS = nn.CrossEntropyLoss()

(PIXELS, DIGITS), (HELD_OUT, TRUTH) = digits()  # for training and for validation


def accuracy(model: nn.Module) -> float:
    """On the validation set."""
    with torch.no_grad():
        return (model(HELD_OUT).argmax(1) == TRUTH).float().mean().item()


def train(part: Segment) -> dict[str, Any]:
    """Train from fresh weights, as all trials do, and return what the sampler records."""
    torch.manual_seed(part.seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=part.lr, momentum=0.9)
    averaged, losses = AveragedModel(model), list[float]()
    batches = torch.Generator().manual_seed(part.seed)  # the same for all LRs
    for step in range(part.stop):
        for group in optimizer.param_groups:
            group["lr"] = part.lr_at(step)
        chosen = torch.randint(len(DIGITS), (32,), generator=batches)
        loss = LOSS(model(PIXELS[chosen]), DIGITS[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step >= part.average_from:
            averaged.update_parameters(model)
    return {"value": accuracy(model), "averaged": accuracy(averaged), "losses": losses}


def main() -> None:
    """Search, then train."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = LRSampler(FOLDER, steps=STEPS, direction="maximize", anneal=True)
    study = optuna.create_study(
        storage=STUDY, study_name="digits", direction="maximize", sampler=sampler, load_if_exists=True
    )

    def objective(trial: optuna.Trial) -> float:
        part = sampler.segment(trial)  # its LR and steps are the trial's parameters
        return sampler.tell(trial, **train(part))

    if not sampler.finished:
        study.optimize(objective)  # ends by itself
    advice = sampler.advice()
    print(f"After {len(study.trials)} trials: {advice}")
    if advice.lr is None:  # no LR differed from the others
        return
    anneal_from = STEPS * 4 // 5 if advice.finish == "anneal" else None
    whole = make_segment(lr=advice.lr, seed=0, start=0, stop=STEPS, parent=None, anneal_from=anneal_from)
    reached = train(whole)
    print(f"Validation accuracy: {reached['value']:.3f}, of the averaged weights {reached['averaged']:.3f}")


if __name__ == "__main__":
    main()
