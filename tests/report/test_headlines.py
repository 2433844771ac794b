"""Titles say what the data say and no more; three lines are shown at first, on an axis of possible values."""

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
import pytest

from lratlas.analysis.recommendation import recommend
from lratlas.report.charts.geometry import basin_in_words
from lratlas.report.charts.learned import bands_in_words, features_in_words
from lratlas.report.charts.minima import norms_in_words
from lratlas.report.charts.quality import accuracy_chart, best_in_words, swing_in_words
from lratlas.report.charts.score_lines import best_lines
from lratlas.report.charts.traces import course_in_words
from lratlas.report.frames import regime_bands, regimes_in_words
from lratlas.tables import SCHEMAS, Tables

PLRS, REGIMES = (1e-4, 1e-3, 1e-2, 1e-1), ("1", "1", "2A", "3")
Row = dict[str, Any]


def frame(table: str, rows: Sequence[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMAS[table])


def study(means: Sequence[float], *, seeds: int = 4, noise: float = 0.001) -> Tables:
    """Fine-tuned models of these mean accuracies, one for each PLR; the threshold is between the second and third."""
    swing = [noise * (-1) ** seed for seed in range(seeds)]
    rows = [
        {
            "run": f"{stage}-{plr}-{seed}",
            "stage": stage,
            "plr": plr,
            "flr": 1e-5 if stage == "finetune" else None,
            "seed": seed,
            # The best PLR and the others swing against each other, so that their differences swing as well.
            "test_accuracy": mean + (swing[seed] if mean == max(means) else -swing[seed]),
        }
        for stage in ("pretrain", "finetune")
        for plr, mean in zip(PLRS, means, strict=True)
        for seed in range(seeds)
    ]
    threshold: Row = {"boundary": "convergence", "below": 1e-3, "above": 1e-2, "value": 3e-3}
    return {
        "runs": frame("runs", rows),
        "regimes": frame("regimes", [{"plr": p, "regime": r} for p, r in zip(PLRS, REGIMES, strict=True)]),
        "boundaries": frame("boundaries", [threshold]),
    }


@pytest.mark.parametrize(
    ("means", "more", "said"),
    [
        ((0.7, 0.75, 0.8, 0.5), {}, "Best from 1e-2, just above the threshold"),
        ((0.7, 0.8, 0.75, 0.5), {}, "Best from 1e-3, below the threshold"),
        ((0.7, 0.79, 0.8, 0.5), {"noise": 0.05}, "Best from 1e-2, just above the threshold, within noise of other LRs"),
        ((0.7, 0.75, 0.8, 0.5), {"seeds": 1}, "Best from 1e-2, just above the threshold (one seed)"),
        ((0.8, 0.75, 0.7, 0.5), {}, "Best from 1e-4, the edge of the tested range"),
    ],
)
def test_the_headline_of_the_answer(means: Sequence[float], more: Row, said: str) -> None:
    tables = study(means, **more)
    assert best_in_words(tables, recommend(tables, elr=False)) == said
    assert accuracy_chart(tables).to_dict()["usermeta"]["heading"] == said


def test_without_a_recommendation_the_headline_names_what_is_shown() -> None:
    tables = study((0.7, 0.75, 0.8, 0.5))
    bare = {**tables, "runs": tables["runs"].filter(stage="pretrain")}
    assert accuracy_chart(bare).to_dict()["usermeta"]["heading"] == "Test accuracy against the pre-training LR"


def test_the_first_three_lines_are_those_that_the_answer_compares(tables: Tables) -> None:
    pretrained, tuned, averaged = best_lines(tables)
    assert (pretrained, tuned) == ("pre-training", "FLR 3.16e-5")  # the lowest FLR
    means = tables["runs"].filter(stage="average").group_by("plr", "count").agg(pl.col("test_accuracy").mean())
    assert averaged == f"SWA-{means.sort('test_accuracy')['count'][-1]}"
    first = {param["name"]: param.get("value") for param in accuracy_chart(tables).to_dict()["params"]}
    assert (first["flr_accuracy"], first["k_accuracy"]) == (tuned, averaged)


def test_the_recommended_lr_and_the_threshold_with_its_interval_are_marked(tables: Tables) -> None:
    spec, best = accuracy_chart(tables).to_dict(), recommend(tables, elr=False)
    (threshold,) = tables["boundaries"].filter(boundary="convergence").to_dicts()
    marked = [row for rows in spec["datasets"].values() if isinstance(rows, list) for row in rows if "name" in row]
    lines = {row["name"].split()[0]: row for row in marked}
    assert best is not None
    assert lines["use"]["lr"] == pytest.approx(best.lr, rel=1e-5)
    for at, name in (("at", "value"), ("low", "low"), ("high", "high")):
        assert lines["threshold"][at] == pytest.approx(threshold[name], rel=1e-5)


@pytest.mark.parametrize("best", [0.6, 0.97, 1.0])
def test_the_axis_ends_near_the_contenders_and_within_what_is_possible(best: float) -> None:
    tables = study((best - 0.02, best - 0.01, best, 0.1), noise=0.02)
    domains = [
        scale["domain"]
        for layer in accuracy_chart(tables).to_dict()["layer"]
        if (scale := layer["encoding"].get("y", {}).get("scale"))
    ]
    low, high = domains[0]["expr"] if isinstance(domains[0], dict) else domains[0]
    first = [end["expr"].split("?")[1].split(":")[0] if isinstance(end, dict) else end for end in (low, high)]
    assert 0.3 < float(first[0]) < best - 0.01
    assert best <= float(first[1]) <= 1


@pytest.mark.parametrize(
    ("barriers", "said"),
    [
        ((0.1, 0.01, 0.02, 0.2), "No notable test barrier from 1e-3 to 1e-2; elsewhere up to 20.0%, at 1e-1"),
        ((0.01, 0.1, 0.02, 0.0), "No notable test barrier at 1e-4, 1e-2; elsewhere up to 10.0%, at 1e-3"),
        ((0.1, 0.1, 0.2, 0.3), "Solutions are not all connected at any LR: some barrier exceeds 4%"),
    ],
)
def test_the_headline_of_the_geometry(barriers: Sequence[float], said: str) -> None:
    rows = [{"plr": plr, "test_barrier": barrier} for plr, barrier in zip(PLRS, barriers, strict=True)]
    data = pl.DataFrame(rows).with_columns(seed=pl.lit(None, pl.Int64))
    assert basin_in_words(data, study((0.0,) * 4)["regimes"]) == said


@pytest.mark.parametrize(
    ("reached", "said"),
    [
        (
            ("convergence", "divergence"),
            "Training converges up to 1e-3, stays on a plateau from 1e-2 and diverges from 1e-2",
        ),
        (("convergence",), "Training converges up to 1e-3 and stays on a plateau from 1e-2"),
        (("divergence",), "Training diverges from 1e-2"),
        ((), ""),
    ],
)
def test_the_headline_of_the_traces(reached: Sequence[str], said: str) -> None:
    names = ("convergence", "subregime", "divergence")
    rows: list[Row] = [{"boundary": name, "below": 1e-3, "above": 1e-2} for name in names]
    found = [row | ({"value": 3e-3} if row["boundary"] in reached else {}) for row in rows]
    assert course_in_words(frame("boundaries", found)) == said


@pytest.mark.parametrize(
    ("second", "said"), [(0.6, "One feature stands out at 1e-2: 80%, the next 60%"), (0.78, "No feature stands out")]
)
def test_the_headline_of_the_features(second: float, said: str) -> None:
    rows = [
        {"stage": "pretrain", "plr": plr, "rank": rank, "accuracy": accuracy}
        for plr, best in ((1e-3, 0.55), (1e-2, 0.8))
        for rank, accuracy in ((1, best), (2, min(second, best)))
    ]
    data = pl.DataFrame(rows).with_columns(seed=pl.lit(None, pl.Int64))
    assert features_in_words(data).startswith(said)


@pytest.mark.parametrize(
    ("best", "said"),
    [
        ("llmx", "Most informative: band low up to 1e-3, band mid from 1e-2"),
        ("llll", "Most informative at every LR: band low"),
        ("lmlm", "Which Fourier bands were learned"),
    ],
)
def test_the_headline_of_the_bands(best: str, said: str) -> None:
    names = {"l": "low", "m": "mid", "x": "high"}  # at the last PLR, of regime 3, all are left out
    rows = [
        {"stage": "pretrain", "plr": plr, "kept": True, "band": band, "accuracy": 0.6 if band == names[top] else 0.3}
        for plr, top in zip((1e-4, 1e-3, 1e-2, 1e-1), best, strict=True)
        for band in names.values()
    ]
    data = pl.DataFrame(rows).with_columns(seed=pl.lit(None, pl.Int64))
    regimes = frame("regimes", [{"plr": 1e-1, "regime": "3"}])
    assert bands_in_words(data, regimes if best != "lmlm" else frame("regimes", [])) == said


@pytest.mark.parametrize(
    ("swing", "said"),
    [
        (0.042, "Late in pre-training, test accuracy varies most at 1e-2: ±4.2 points"),
        (0.0, "Variation of the test accuracy"),
    ],
)
def test_the_headline_of_the_swings(swing: float, said: str) -> None:
    rows = [{"plr": 1e-3, "mean": 0.9, "high": 0.9}, {"plr": 1e-2, "mean": 0.8, "high": 0.8 + swing}]
    assert swing_in_words(pl.DataFrame(rows).with_columns(seed=pl.lit(None, pl.Int64))).startswith(said)


def test_the_headline_of_the_norms() -> None:
    spreads = {("1", "before training"): 0.2, ("1", "after pre-training"): 0.5, ("3", "after pre-training"): 2.46}
    rows = [{"regime": regime, "state": state, "spread": spread} for (regime, state), spread in spreads.items()]
    data = pl.DataFrame(rows).with_columns(seed=pl.lit(None, pl.Int64))
    assert norms_in_words(data) == "Norms of filters spread most in regime 3: 90% span 2.5 decades, 0.2 before training"
    assert norms_in_words(data.head(2)) == "Spread of the norms of the filters"


@pytest.mark.parametrize(
    ("names", "again"),
    [("1 2A 2B 3", ""), ("1 undecided 1 3", ""), ("1 2A 2B 2A 2B", "2A and 2B appear more"), ("2A 1 2A", "2A appears")],
)
def test_regimes_out_of_order_are_said(names: str, again: str) -> None:
    rows: list[Row] = [{"plr": 10.0**i, "regime": name} for i, name in enumerate(names.split())]
    words = regimes_in_words(regime_bands({"regimes": frame("regimes", rows)}))
    assert words.startswith("Shaded: the regime of each PLR.")
    assert ("not in order" in words) == bool(again)
    assert again in words


def test_one_seed_has_no_mean_in_its_captions(make_study: Callable[..., dict[str, pl.DataFrame]]) -> None:
    from lratlas.report.charts.geometry import geometry_chart
    from lratlas.report.charts.traces import traces_chart

    tables = make_study(seeds=1)
    for draw in (accuracy_chart, traces_chart, geometry_chart):
        caption = draw(tables).to_dict()["usermeta"]["caption"].lower()
        assert "one seed" in caption
        assert not any(word in caption for word in ("over seeds", "mean over", "deviation"))
