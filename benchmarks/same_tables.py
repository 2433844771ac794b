"""Do two commits compute the same numbers? Small studies and searches, trained and analysed by both on one machine.

A change of structure must not change a number. Every table of every study (stored and computed), every weight in its
checkpoints and the advice of every search are compared bit for bit; only wall times are left out.

    python -m benchmarks.same_tables OLD NEW FOLDER

OLD and NEW are checkouts; both run with this Python and its packages. What is in FOLDER already is not trained again.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from safetensors import safe_open

SPECS: Mapping[str, str] = {
    "ticks": """
[task]
preset = "ticks"
batch_size = 16
rule = { name = "sphere_sgd" }
[pretrain]
lrs = { low = 1e-3, high = 1.0, per_decade = 3 }
steps = 1500
repeats = 3
[second]
plrs = [1e-1]
lrs = [1e-2]
steps = 500
[finetune]
lrs = [1e-4, 1e-3]
steps = 400
[average]
counts = [2, 5]
every = 50
[measure]
great_circle = true
convergence = true
norms = true
sharpness = true
sharpness_samples = 256
[training]
segment_steps = 600
""",
    "digits": """
[task]
preset = "digits"
batch_size = 32
options = { images = 300, corruption = 0.2 }
rule = { name = "sphere_rsgd" }
[pretrain]
lrs = { low = 1e-3, high = 1.0, per_decade = 2 }
epochs = 60
repeats = 3
[finetune]
lrs = [1e-4, 1e-3, 1e-2]
epochs = 10
[average]
counts = [2, 5]
extend = true
[refine]
ratio = 1.5
[regimes]
small_loss = 0.05
""",
    "images": """
[task]
preset = "images"
batch_size = 64
rule = { name = "sgd", momentum = 0.9, weight_decay = 5e-4 }
[task.options]
data = "fashion-mnist"
model = "resnet18"
width = 4
images = 256
test_images = 128
pixels = 16
augment = ["crop_and_flip"]
[pretrain]
lrs = [1e-2, 1e-1, 1.0]
epochs = 5
[finetune]
lrs = [1e-3]
epochs = 1
[average]
counts = [2]
[measure]
bands = [[0, 3], [3, 8]]
interpolation = 5
[training]
compile = false
""",
    "vit": """
[task]
preset = "images"
batch_size = 64
rule = { name = "adam", weight_decay = 1e-4 }
[task.options]
data = "fashion-mnist"
model = "vit"
width = 16
depth = 2
heads = 2
mlp = 32
dropout = 0.1
images = 256
test_images = 128
pixels = 16
patch = 4
[pretrain]
lrs = [1e-4, 1e-3, 1e-1]
epochs = 5
repeats = 2
[finetune]
lrs = [1e-5]
epochs = 1
[average]
counts = [2]
every_epochs = 2
[measure]
interpolation = 5
[training]
strategy = "stack"
compile = false
""",
    "own": """
[task]
model = "own_toy:make_model"
data = "own_toy:load"
loss = "own_toy:weighted"
batch_size = 32
rule = { name = "own_toy:make_optimizer" }
[pretrain]
lrs = { low = 1e-3, high = 10.0, per_decade = 1 }
steps = 300
repeats = 2
[finetune]
lrs = [1e-3, 1e-2]
steps = 50
[average]
counts = [3]
every = 20
[measure]
sharpness = true
interpolation = 5
""",
}
MODULE = """
import torch
from torch import nn

WEIGHT = torch.tensor([1.0, 2.0, 0.5])


def make_model():
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def load():
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(240, 6, generator=generator)
    y = (x @ torch.randn(6, 3, generator=generator)).argmax(1)
    return (x[:160], y[:160]), (x[160:], y[160:])


def weighted(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, weight=WEIGHT, label_smoothing=0.1)


def make_optimizer(parameters, lr):
    return torch.optim.NAdam(parameters, lr=lr)
"""
SCRIPT = """
import sys
import torch
from torch import nn

lr, torch_seed = float(sys.argv[1]), 3
torch.manual_seed(torch_seed)
x = torch.randn(400, 8)
y = (x[:, 0] * x[:, 1] > 0).long()
model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def evaluate():
    with torch.no_grad():
        return nn.functional.cross_entropy(model(x[300:]), y[300:]).item()


for step in range(300):
    index = torch.randint(300, (32,))
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x[index]), y[index]).backward()
    optimizer.step()

print("val_loss", evaluate())
"""
SEARCHES: Mapping[str, tuple[str, ...]] = {
    "find-own": ("own.toml", "--steps", "600"),
    "find-digits": ("digits.toml", "--epochs", "60", "--schedule", "cosine"),
    "find-script": ("--script", "script.py", "--value", "evaluate()", "--lrs", "1e-3", "1", "2", "--", "{lr}"),
}
STORED = ("runs", "traces", "pairs", "features", "bands", "sharpness", "norms", "convergence")
COMPUTED = ("regimes", "boundaries", "claims")
UNTIMED = ("seconds", "wall_s")


def run_all(checkout: Path, folder: Path) -> None:
    """Train every study and search in this folder with the package of a checkout."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own_toy.py").write_text(MODULE)
    (folder / "script.py").write_text(SCRIPT)
    for name, text in SPECS.items():
        (folder / f"{name}.toml").write_text(text)
        run(checkout, folder, "explore", f"{name}.toml", "--folder", name, "--workers", "1")
        for table in COMPUTED:
            rows = run(checkout, folder, "show", name, table, "--format", "json")
            (folder / f"{name}-{table}.json").write_text(rows)
        lines = run(checkout, folder, "status", name).replace(str(folder), "").splitlines()
        (folder / f"{name}-status.txt").write_text(
            "\n".join(line for line in lines if not line.startswith("Made with"))
        )
    for name, arguments in SEARCHES.items():
        (folder / f"{name}.json").write_text(
            run(checkout, folder, "find", "--folder", name, "--json", *arguments).replace(str(folder), "")
        )


def run(checkout: Path, folder: Path, *arguments: str) -> str:
    """What a command of the package of a checkout prints."""
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lratlas", *arguments]
    done = subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed in {folder}:\n{done.stderr}")
    return done.stdout


def differences(old: Path, new: Path) -> list[str]:
    """What differs between the studies and searches of two folders."""
    found: list[str] = []
    for name in SPECS:
        for table in STORED:
            first, second = (stored(folder / name, table) for folder in (old, new))
            if not (first.equals(second) if first is not None and second is not None else first is second):
                found.append(f"{name}: table {table}")
        first, second = (weights(folder / name) for folder in (old, new))
        found += [f"{name}: weights {each}" for each in sorted(first.keys() ^ second.keys())]
        found += [
            f"{name}: weights {each}" for each in sorted(first.keys() & second.keys()) if first[each] != second[each]
        ]
        for file in (*(f"{name}-{table}.json" for table in COMPUTED), f"{name}-status.txt"):
            if (old / file).read_text() != (new / file).read_text():
                found.append(file)
    for name in SEARCHES:
        first, second = (untimed(json.loads((folder / f"{name}.json").read_text())) for folder in (old, new))
        if first != second:
            found.append(f"{name}.json")
    return found


def stored(study: Path, table: str) -> pl.DataFrame | None:
    """A stored table in its own order, without its wall times; None if the study has none."""
    parts = sorted((study / "tables" / table).glob("*.parquet"))
    if not parts:
        return None
    frame = pl.concat([pl.read_parquet(part) for part in parts]).drop(*UNTIMED, strict=False)
    return frame.select(sorted(frame.columns)).sort(sorted(frame.columns))


def weights(study: Path) -> dict[str, bytes]:
    """Every tensor of every checkpoint, by file and name, as its bytes."""
    found: dict[str, bytes] = {}
    for path in sorted((study / "checkpoints").glob("*.safetensors")):
        with safe_open(path, framework="numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118 -- it has no other way to its names
                found[f"{path.name} {name}"] = np.ascontiguousarray(tensors.get_tensor(name)).tobytes()
    return found


def untimed(value: object) -> object:
    """The value without wall times, at any depth."""
    if isinstance(value, dict):
        return {key: untimed(each) for key, each in value.items() if key not in UNTIMED}
    return [untimed(each) for each in value] if isinstance(value, list) else value


def main() -> None:
    """Train with both, compare, and say what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    for name in ("old", "new"):
        run_all(getattr(asked, name).resolve(), (asked.folder / name).resolve())
    found = differences(asked.folder / "old", asked.folder / "new")
    print("\n".join(found) or "Every table, weight and advice is the same, bit for bit.")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
