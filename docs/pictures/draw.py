"""What the pictures of the pages show, measured again.

python docs/pictures/draw.py watch                 three trainings and their regimes: watch.csv
python docs/pictures/draw.py report FOLDER         the report of a study in a browser: report.png, report-accuracy.png
"""

import io
import sys
from pathlib import Path

import polars as pl
import torch
from PIL import Image
from playwright.sync_api import sync_playwright
from sklearn.datasets import load_digits
from torch import nn

import lratlas
from lratlas.models.mlp import MLP

HERE = Path(__file__).parent
STEPS = 2_000
ELRS = (1e-3, 2e-2, 2.0)


def watched(elr: float) -> tuple[list[float], list[tuple[int, str]]]:
    """Losses and regimes of a scale-invariant net on the unit sphere, trained on 1,200 digits at a constant ELR."""
    x, y = (torch.as_tensor(part[:1200]) for part in load_digits(return_X_y=True))
    torch.manual_seed(0)
    model, batches = MLP(64, (64, 64), 10, scale_invariant=True), torch.Generator().manual_seed(0)
    weights = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=elr)
    watch, losses = lratlas.watch(optimizer, chance_loss=2.303, chance_accuracy=0.1), list[float]()
    for _ in range(STEPS):
        norm = nn.utils.get_total_norm([each.detach() for each in weights])
        for each in weights:
            each.data /= norm
        chosen = torch.randint(len(x), (32,), generator=batches)
        outputs = model(x[chosen].float() / 16)
        loss = nn.functional.cross_entropy(outputs, y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch(loss, accuracy=(outputs.argmax(1) == y[chosen]).float().mean().item())
        losses.append(loss.item())
    return losses, [(seen.step, seen.regime) for seen in watch.log]


def watch_table() -> pl.DataFrame:
    """Mean losses of 25 steps each, and the regime at each check."""
    rows = list[dict[str, object]]()
    for elr in ELRS:
        losses, checks = watched(elr)
        means = torch.tensor(losses).view(-1, 25).mean(1).tolist()
        series = f"LR {elr:g}"
        rows += [{"series": series, "step": 25 * (at + 1), "loss": loss} for at, loss in enumerate(means)]
        rows += [
            {"series": series, "step": step, "loss": means[step // 25 - 1], "regime": regime} for step, regime in checks
        ]
    return pl.DataFrame(rows, schema_overrides={"regime": pl.String}, infer_schema_length=None)


def report_pictures(folder: str) -> dict[str, bytes]:
    """The first screen of a report, and its first chart."""
    page = (Path(folder) / "report.html").resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": 1100, "height": 780}, reduced_motion="reduce")
        window.goto(page)
        window.wait_for_timeout(3_000)
        top = window.screenshot()
        figure = window.locator("figure#chart-accuracy")
        figure.scroll_into_view_if_needed()
        window.locator("figure#chart-accuracy[data-drawn]").wait_for()
        chart = figure.screenshot()
        browser.close()
    return {"report.png": smaller(top), "report-accuracy.png": smaller(chart)}


def smaller(picture: bytes) -> bytes:
    """The picture in 128 colours, a third of the bytes."""
    out = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(128).save(out, "PNG", optimize=True)
    return out.getvalue()


def main() -> None:
    """Measure what is asked for."""
    if sys.argv[1] == "watch":
        watch_table().write_csv(HERE / "watch.csv")
    else:
        for name, picture in report_pictures(sys.argv[2]).items():
            (HERE / name).write_bytes(picture)


if __name__ == "__main__":
    main()
