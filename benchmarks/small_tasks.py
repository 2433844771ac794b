"""On which small task of real data does the best initial LR lie above the threshold? All that were tried.

The demonstration has to show the paper's finding within minutes, on data that come with scikit-learn: its handwritten
digits, all of them or few, with right labels or wrong ones. Each line is a study of five repetitions with one variant.

    python -m benchmarks.small_tasks FOLDER > docs/results/small-tasks/table.md
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import polars as pl

import lratlas
from lratlas.config.grid import lr_grid
from lratlas.config.sections import Spec
from lratlas.config.spec import spec_from

IMAGES = (100, 300, 1257)
CORRUPTIONS = (0.0, 0.2, 0.4)
REPEATS = 5
STEPS = 6000
FLRS = (3e-4, 1e-3, 1e-2)
HEADER = (
    "| training images | wrong labels | threshold | way to finish | best that converges | best above the threshold"
    " | gain just above it | verdict |"
)
WAYS = {"best-fine-tuned": "fine-tuned", "best-averaged": "averaged"}


def spec(images: int, corruption: float) -> Spec:
    """The spec of one variant."""
    options = {"images": images, "corruption": corruption}
    return spec_from(
        {
            "task": {"preset": "digits", "batch_size": 32, "rule": {"name": "sphere_sgd"}, "options": options},
            "pretrain": {"lrs": lr_grid(1e-3, 1e-1, per_decade=8), "steps": STEPS, "repeats": REPEATS},
            "finetune": {"lrs": FLRS, "steps": STEPS // 2},
            "average": {"counts": [5, 20, 50], "every": STEPS // 300},
        }
    )


def rows(images: int, corruption: float, folder: Path) -> Iterator[str]:
    """The lines of a variant in the table, one for each way to finish."""
    atlas = lratlas.explore(spec(images, corruption), folder=folder / f"{images}-{corruption}")
    found = atlas.table("boundaries").filter(boundary="convergence").row(0, named=True)
    threshold = found["value"]
    claims = {each["claim"]: each for each in atlas.table("claims").iter_rows(named=True)}
    runs = atlas.table("runs").filter((pl.col("stage") == "average") | (pl.col("flr") == min(FLRS)))
    means = runs.group_by("stage", "plr", "count").agg(pl.col("test_accuracy").mean()).sort("test_accuracy")
    for claim, way in WAYS.items():
        own = means.filter(stage="average" if way == "averaged" else "finetune")
        below, above = (own.filter(side).tail(1) for side in (pl.col("plr") < threshold, pl.col("plr") > threshold))
        best = (f"{100 * each['test_accuracy'].item():.1f}% from {each['plr'].item():.2g}" for each in (below, above))
        judged = claims[claim]
        gain = (
            "–"
            if judged["low"] is None
            else "{:.1f} points ({:.1f} to {:.1f})".format(*(100 * judged[each] for each in ("effect", "low", "high")))
        )
        cells = (images, f"{100 * corruption:.0f}%", f"{threshold:.2g}", way, *best, gain, judged["verdict"])
        yield f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Run all variants, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print(HEADER)
    print("|---" * HEADER.count(" | ") + "|---|")
    for images, corruption in itertools.product(IMAGES, CORRUPTIONS):
        for row in rows(images, corruption, folder):
            print(row, flush=True)


if __name__ == "__main__":
    main()
