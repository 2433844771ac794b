"""Fashion-MNIST under the names of data sets of its shape, shortened."""

import os
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from lratlas.data.readers import read_images

_TRAINED = int(os.environ["PROGRAM_IMAGES"])  # half as many are for tests


class MNIST(Dataset[Any]):
    """The first images of Fashion-MNIST, each of the shape (1, 28, 28), and their labels."""

    def __init__(
        self,
        root: str,  # noqa: ARG002
        train: bool = True,
        transform: Callable[[Tensor], Any] | None = None,
        download: bool = False,  # noqa: ARG002
    ) -> None:
        found = read_images("fashion-mnist")
        images, labels = found.train if train else found.test
        count = _TRAINED if train else _TRAINED // 2
        self.data, self.targets, self.transform = images[:count], labels[:count], transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, at: int) -> tuple[Any, int]:
        image = self.data[at].float() / 255
        return self.transform(image) if self.transform else image, int(self.targets[at])


FashionMNIST = MNIST
