"""A training script like any other: of LR Atlas it has only the digits.

In this folder:  python ordinary_training.py --lr 0.1
"""

import argparse

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lratlas.data import digits


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of digits that the model recognizes."""
    model.eval()
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


def train(lr: float, epochs: int = 20, seed: int = 0) -> None:
    """Train an MLP with SGD, and print its validation accuracy after each epoch."""
    torch.manual_seed(seed)
    train_set, held_out = digits()
    loader = DataLoader(TensorDataset(*train_set), batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for epoch in range(epochs):
        model.train()
        for inputs, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: validation accuracy {accuracy(model, *held_out):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    train(**vars(parser.parse_args()))
