"""The pictures of the documentation that no study has drawn.

python docs/pictures/draw.py watch                 three trainings, and what `watch` says of each
python docs/pictures/draw.py report FOLDER         the report of a study, as a browser shows it
"""

import io
import sys
from pathlib import Path

import altair as alt
import polars as pl
import torch
from PIL import Image
from playwright.sync_api import sync_playwright
from sklearn.datasets import load_digits
from torch import nn

import lratlas
from lratlas.models.mlp import MLP
from lratlas.report import theme
from lratlas.report.figures import figure_svg

HERE = Path(__file__).parent
STEPS = 2_000
ELRS = (1e-3, 2e-2, 2.0)
COLOURS = {
    "converging": theme.REGIME_COLOURS["1"],
    "equilibrium": theme.REGIME_COLOURS["2A"],
    "diverging": theme.REGIME_COLOURS["3"],
    "undecided": theme.NEUTRAL,
}


def watched(elr: float) -> tuple[list[float], list[tuple[int, str]]]:
    """Losses and looks of a scale-invariant net on the unit sphere, trained on 1,200 digits at a constant ELR."""
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


def watch_picture() -> str:
    """Mean losses of 25 steps each, and a mark at each look in the colour of the regime that it named."""
    lines, marks = list[dict[str, object]](), list[dict[str, object]]()
    for elr in ELRS:
        losses, looks = watched(elr)
        means = torch.tensor(losses).view(-1, 25).mean(1).tolist()
        series = f"LR {elr:g}"
        lines += [{"step": 25 * (at + 1), "loss": loss, "series": series} for at, loss in enumerate(means)]
        marks += [
            {"step": step, "loss": means[step // 25 - 1], "series": series, "regime": regime} for step, regime in looks
        ]
    step, loss = alt.X("step:Q").title("step"), alt.Y("loss:Q").scale(type="log").title("training loss")
    line = alt.Chart(theme.inline(pl.DataFrame(lines))).mark_line(color=theme.NEUTRAL, strokeWidth=1)
    regime = alt.Color("regime:N").scale(domain=[*COLOURS], range=[*COLOURS.values()]).title(None)
    mark = alt.Chart(theme.inline(pl.DataFrame(marks))).mark_point(filled=True, size=45, opacity=1)
    layers = alt.LayerChart(
        layer=[line.encode(x=step, y=loss, detail="series:N"), mark.encode(x=step, y=loss, color=regime)]
    )
    return figure_svg(theme.finish(layers.properties(width=545, height=260), "Losses of three trainings and regimes"))


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
    """Draw what is asked for."""
    if sys.argv[1] == "watch":
        (HERE / "watch.svg").write_text(watch_picture(), encoding="utf-8")
    else:
        for name, picture in report_pictures(sys.argv[2]).items():
            (HERE / name).write_bytes(picture)


if __name__ == "__main__":
    main()
