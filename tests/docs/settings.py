"""What the blocks of the pages take for granted, what makes them short, and which of them cannot be run."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from docs.pages import CODE, DOCS, ROOT, blocks_of

TRAINING = "trains for minutes to hours"
CLUSTER = "needs a cluster"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a page is run.

    Attributes:
        before: Python that is run before its blocks: what the page leaves to the reader.
        files: What lies in the reader's folder besides, by name.
        short: Texts of its blocks, to what stands there in the test.
        left_out: Beginnings of blocks that are not run, to the reason. Their commands are still parsed.
    """

    before: str = ""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    short: Mapping[str, str] = field(default_factory=dict[str, str])
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])


# A program that trains nothing: its loss is least at an LR of 0.1.
SCRIPT = """\
import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
parser.add_argument("--epochs", type=int)
args = parser.parse_args()
x = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
data = TensorDataset(x, (x[:, 0] > 0).long())
loader, val_loader = DataLoader(data, batch_size=40, shuffle=True), DataLoader(data, batch_size=300)
model = nn.Linear(8, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)


def evaluate(model, loader):
    return sum((model(inputs).argmax(1) == labels).float().mean() for inputs, labels in loader) / len(loader)


for _ in range(args.epochs):
    for inputs, labels in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
"""
PROGRAM = """
import json, math, sys
told = dict(zip(sys.argv[1::2], sys.argv[2::2]))
open(told["--state"], "w").close()
print(json.dumps({"value": 0.1 + math.log(float(told["--lr"]) / 0.1) ** 2}))
"""
LOOP = """
import lratlas, torch
torch.manual_seed(0)
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
criterion = torch.nn.CrossEntropyLoss()
loader = [(torch.randn(8, 4), torch.randint(2, (8,))) for _ in range(300)]
"""
AVERAGED = """
for x, y in loader:
    criterion(model(x), y).backward()
    optimizer.step()
    watch(0.5)
"""
LIBRARIES = """
import logging, os
os.environ["TRACKIO_DIR"] = "trackio"
import lightning.pytorch, optuna, torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset
import lratlas
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
optuna.logging.set_verbosity(optuna.logging.WARNING)
torch.manual_seed(0)
options = {"accelerator": "cpu", "max_steps": 300, "logger": False, "enable_checkpointing": False,
           "enable_progress_bar": False, "enable_model_summary": False}
x = torch.randn(64, 4)
loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=16)


class Module(LightningModule):
    def __init__(self, lr=0.1):
        super().__init__()
        self.net, self.lr = torch.nn.Linear(4, 2), lr

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def train_dataloader(self):
        return loader

    val_dataloader = train_dataloader


module = Module()


def train(lr, steps):
    return -((torch.tensor(lr).log10() + 1) ** 2).item()
"""

SETTINGS: Mapping[str, Setting] = {
    "docs/index.md": Setting(
        short={
            "epochs=30)": "steps=64, lrs=[0.1], budget=0.5)",
            "lratlas.lr_grid(1e-3, 10, per_decade=3)": "[0.01, 0.1]",
            '"epochs": 30}': '"epochs": 2}',
            '"epochs": 10}': '"epochs": 1}',
            '"counts": [2, 5, 10]}': '"counts": [2]}, training={"compile": False}',
        },
        left_out={"python3 -m venv": "installs packages"},
    ),
    "docs/architecture.md": Setting(
        short={
            '"epochs": 20}': '"epochs": 1}',
            "measure=[CONFIDENCE])": 'measure=[CONFIDENCE], training={"compile": False})',
        }
    ),
    "docs/explore.md": Setting(),
    "docs/find.md": Setting(
        before=(
            "import math\n"
            "def train(segment):\n"
            "    accuracy = 0.9 - 0.1 * math.log10(segment.lr / 0.02) ** 2 - segment.stop ** -0.5\n"
            "    return accuracy, accuracy + 0.01\n"
        ),
        files={"train.py": PROGRAM},
        short={"epochs=20, folder": "steps=128, lrs=[0.01, 0.1, 1.0], folder"},
    ),
    "docs/watch.md": Setting(
        before=LOOP + "def accuracy(*_):\n    return 0.5\nvalidation = loader\n",
        short={"...\nwatch.ahead": f"{AVERAGED}watch.ahead"},
    ),
    "docs/report.md": Setting(),
    "docs/regimes.md": Setting(),
    "docs/folder.md": Setting(),
    "docs/own-model.md": Setting(
        short={
            "epochs=20, lrs=[1e-3, 1e-2, 0.1, 1.0]": "steps=64, lrs=[0.1], budget=0.5",
            "lrs = { low = 1e-3, high = 10.0, per_decade = 3 }": "lrs = [0.01, 0.1]",
            "epochs = 30\n": "epochs = 2\n",
            "epochs = 10\n": "epochs = 1\n[training]\ncompile = false\n[trace]\npoints = 5\n",
            "steps=200, lrs=[0.01, 0.1, 1.0]": "steps=64, lrs=[0.1], budget=0.5",
        },
    ),
    "docs/script.md": Setting(
        files={"train.py": SCRIPT},
        short={
            "epochs=16": "epochs=4",
            "samples=200": "samples=200, lrs=[0.01, 0.1]",
            " --direction max": " --lrs 0.01 0.1 1 --direction max",
        },
    ),
    "docs/command.md": Setting(
        files={
            "train.py": PROGRAM.replace('told["--state"]', 'told.get("--state") or told["--save"]')
            + 'print("val acc:", 1 / (1 + math.log(float(told["--lr"]) / 0.1) ** 2))\n'
        },
        short={"--epochs 20 ": "--epochs 20 --folder by-epochs "},
        left_out={"import argparse": "run by tests/search/program/test_page.py"},
    ),
    "docs/commands.md": Setting(
        left_out={"lratlas find": "run by docs/script.md and docs/command.md", "lratlas data": "needs a network"}
    ),
    "docs/images.md": Setting(),
    "docs/minima.md": Setting(),
    "docs/paper.md": Setting(left_out={"": TRAINING}),
    "docs/cluster.md": Setting(
        short={'if __name__ == "__main__":': "if True:", "ProcessPoolExecutor(4,": "ProcessPoolExecutor(1,"},
        left_out={"lratlas explore": CLUSTER, "#SBATCH": CLUSTER},
    ),
    "docs/devices.md": Setting(left_out={"python benchmarks/gpu.py": "run by tests/benchmarks/test_gpu.py"}),
    "docs/scale.md": Setting(left_out={"": TRAINING}),
    "docs/lightning.md": Setting(
        before=LIBRARIES,
        short={
            "    datamodule=data,": "    lrs=[0.1],\n    budget=0.5,",
            '"precision": "16-mixed", "accumulate_grad_batches": 4}': '"accelerator": "cpu"}',
        },
    ),
    "docs/transformers.md": Setting(left_out={"": "run by tests/integrations/test_transformers.py and …_find.py"}),
    "docs/integrations.md": Setting(
        before=LIBRARIES,
        short={
            'LRSampler("search", steps=10_000': 'LRSampler("optuna-search", steps=100',
        },
        left_out={
            "from functools import partial": "needs runs of three trackers: tests/integrations/test_tracking.py",
        },
    ),
    **{
        str(page.relative_to(ROOT)): Setting(left_out={"": TRAINING})
        for page in (DOCS / "results").rglob("*.md")
        if CODE & {block.language for block in blocks_of(page.read_text("utf-8"))}
    },
}
