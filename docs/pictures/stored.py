"""The pictures of the pages, drawn from the tables that are stored next to them.

python docs/pictures/stored.py [NAME …]          draw all of them again, or those of a folder; a test compares them
"""

import re
import sys
from pathlib import Path
from unittest.mock import patch

import altair as alt
import polars as pl

from lratlas.report import theme
from lratlas.report.charts.catalog import CHART_DATA, CHARTS
from lratlas.report.figures import figure_svg
from lratlas.report.rows import inline
from lratlas.tables import SCHEMAS, Tables, empty

RESULTS = Path(__file__).parents[1] / "results"
WATCH, HERO = (Path(__file__).with_name(name) for name in ("watch.svg", "hero.svg"))
_REGIMES = {
    "converging": theme.REGIME_COLOURS["1"],
    "equilibrium": theme.REGIME_COLOURS["2A"],
    "diverging": theme.REGIME_COLOURS["3"],
    "undecided": theme.NEUTRAL,
}
# Studies of scale-invariant tasks, whose LRs are effective ones.
_EFFECTIVE = {"ticks", "ticks-minima", "ticks-threshold", "fashion-convnet", "fashion-resnet", "cifar10-convnet"}
_WATCH_TEXT = theme.Text(heading="", caption="", alt="Losses of three trainings and regimes")
# Tables of a study that are stored whole, and their files.
_WHOLE = {"regimes": "regimes", "boundaries": "boundaries", "power_law": "power_law", "convergence": "epochs"}


def pictures() -> list[Path]:
    """The pictures with the table that they show next to them."""
    studies = (path for path in RESULTS.glob("*/*.svg") if path.stem in CHART_DATA)
    return [WATCH, HERO, *sorted(path for path in studies if path.with_suffix(".csv").is_file())]


def draw(picture: Path) -> str:
    """The chart of a picture, from the stored table instead of all runs of the study.

    Args:
        picture: One of `pictures`.

    Returns:
        The SVG.
    """
    if picture == WATCH:
        return renumbered(figure_svg(watch_chart(pl.read_csv(picture.with_suffix(".csv"), infer_schema_length=None))))
    if picture == HERO:
        return renumbered(figure_svg(_chart(RESULTS / "ticks" / "accuracy.svg"), page=True))
    return renumbered(figure_svg(_chart(picture)))


def _chart(picture: Path) -> theme.Drawing:
    chart, data = CHARTS[picture.stem], CHART_DATA[picture.stem]
    stored = pl.read_csv(picture.with_suffix(".csv"), infer_schema_length=None)
    if "seed" not in stored.columns:  # only the means are stored
        stored = stored.with_columns(seed=pl.lit(None, pl.Int64))
    # A column without a value has no type.
    stored = stored.with_columns(each.cast(pl.Float64) for each in stored if each.null_count() == stored.height)
    with patch.object(sys.modules[chart.__module__], data.__name__, return_value=stored):
        return chart(_tables(picture.parent), elr=picture.parent.name in _EFFECTIVE)


def watch_chart(rows: pl.DataFrame) -> theme.Drawing:
    """Losses of three trainings, and a mark at each check in the colour of the regime that `watch` named."""
    step, loss = alt.X("step:Q").title("step"), alt.Y("loss:Q").scale(type="log").title("training loss")
    checks = pl.col("regime").is_not_null()
    line = alt.Chart(inline(rows.filter(~checks))).mark_line(color=theme.NEUTRAL, strokeWidth=1)
    regime = alt.Color("regime:N").scale(domain=[*_REGIMES], range=[*_REGIMES.values()]).title(None)
    mark = alt.Chart(inline(rows.filter(checks))).mark_point(filled=True, size=45, opacity=1)
    layers = alt.LayerChart(
        layer=[line.encode(x=step, y=loss, detail="series:N"), mark.encode(x=step, y=loss, color=regime)]
    )
    return theme.finish(layers.properties(width=545, height=260), _WATCH_TEXT)


def renumbered(svg: str) -> str:
    """The picture with its clips and gradients numbered from 1: vl-convert counts them through a whole process."""
    names = dict.fromkeys(re.findall(r'(?<=id=")(?:clip|gradient_)\d+', svg))
    numbers = {name: f"part{number}" for number, name in enumerate(names, 1)}
    return re.sub(r"\b(?:clip|gradient_)\d+\b", lambda found: numbers.get(found[0], found[0]), svg)


def _tables(folder: Path) -> Tables:
    """The stored tables of a study; the others are empty."""
    files = {name: folder / f"{file}.csv" for name, file in _WHOLE.items()}
    stored = {name: _read(files[name], name) if name in files else empty(name) for name in SCHEMAS}
    return stored | {"runs": _mean_runs(folder / "accuracy.csv")}


def _mean_runs(file: Path) -> pl.DataFrame:
    """One run with the mean accuracy for each point of a stored chart, to find the best lines and the best LR."""
    if not file.is_file():
        return empty("runs")
    rows = pl.read_csv(file, infer_schema_length=None)
    if "seed" in rows.columns:
        rows = rows.filter(pl.col("seed").is_null())
    means = rows.select(
        pl.int_range(pl.len()).cast(pl.String).alias("run"),
        "stage",
        "plr",
        flr=pl.col("series").str.extract(r"FLR (\S+)").cast(pl.Float64),
        count=pl.col("series").str.extract(r"SWA-(\d+)").cast(pl.Int64),
        seed=pl.lit(0, pl.Int64),
        diverged=pl.lit(False),
        test_accuracy="mean",
    )
    return pl.concat([empty("runs"), means], how="diagonal_relaxed").select(empty("runs").columns)


def _read(file: Path, name: str) -> pl.DataFrame:
    if not file.is_file():
        return empty(name)
    return pl.concat([empty(name), pl.read_csv(file, schema_overrides=SCHEMAS[name])], how="diagonal")


if __name__ == "__main__":
    for each in pictures():
        if len(sys.argv) > 1 and each.parent.name not in sys.argv[1:]:
            continue
        each.write_text(draw(each), encoding="utf-8")
