"""A training script like any other: it knows nothing of LR Atlas.

In this folder:  python ordinary_training.py --lr 0.1
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

TRAINED = 1_200  # digits; the others are for validation


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of digits that the model recognizes."""
    model.eval()
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


def train(lr: float, epochs: int = 20, seed: int = 0) -> None:
    """Train an MLP with SGD, and print its validation accuracy after each epoch."""
    torch.manual_seed(seed)
    pixels, digits = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    x, y = pixels.float() / 16, digits
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    held = order[TRAINED:]
    loader = DataLoader(TensorDataset(x[order[:TRAINED]], y[order[:TRAINED]]), batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for epoch in range(epochs):
        model.train()
        for inputs, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: validation accuracy {accuracy(model, x[held], y[held]):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    train(**vars(parser.parse_args()))
