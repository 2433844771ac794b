"""A ConvNet pre-trained on half of the classes of Fashion-MNIST, to be fine-tuned on the others."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.advice.data import images
from benchmarks.advice.models import plain_convnet
from lratlas.rng import torch_seed
from lratlas.training.batches import batch_indices

SIZE, WIDTH = 14, 16
KNOWN, NEW = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
_STEPS, _BATCH, _LR = 600, 64, 0.05


def pretrained() -> nn.Sequential:
    """The pre-trained ConvNet with a fresh last layer for the new classes, drawn from PyTorch's generator."""
    model = plain_convnet(channels=1, classes=len(NEW), width=WIDTH, size=SIZE)
    head = {name: value for name, value in model.state_dict().items() if name.startswith("9.")}
    model.load_state_dict({**body(), **head})
    return model


@cache
def body() -> dict[str, Tensor]:
    """The weights after a short training on the known classes, always the same."""
    x, y = images("fashion-mnist", train=4000, validation=1, test=1, shrunk=True, labels=KNOWN).train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(0, "pre-training"))
        model = plain_convnet(channels=1, classes=len(KNOWN), width=WIDTH, size=SIZE)
    optimizer = torch.optim.SGD(model.parameters(), lr=_LR, momentum=0.9)
    order = batch_indices(seed=0, start=0, stop=_STEPS, samples=len(x), batch_size=_BATCH)
    for step, rows in enumerate(order):
        optimizer.param_groups[0]["lr"] = _LR * (1 - step / _STEPS)
        optimizer.zero_grad()
        cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return {name: value.detach() for name, value in model.state_dict().items()}
