"""Studies side by side, from their folders to a page."""

import re
import shutil
from collections.abc import Callable
from functools import partial
from html import unescape
from pathlib import Path

import pytest
import torch

import lratlas
from cheaper import undrawn, workerless
from lratlas import Task
from lratlas.analysis.comparison import COMPARISON
from lratlas.analysis.scores import GAIN
from lratlas.api.compare import compare
from lratlas.api.report import Drawn, page_of
from lratlas.atlas import Atlas, load
from lratlas.errors import StudyError
from lratlas.models.mlp import MLP
from lratlas.report.charts.comparison import readable
from lratlas.text import plain, signed_interval

EVIL = "<script>alert(1)</script>"
Copied = Callable[..., Path]


def blobs(_seed: int = 0) -> Task:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=draw)
    y = (x[:, 0] > 0).long()
    return Task(
        name="blobs",
        model=partial(MLP, 4, (6,), 2, scale_invariant=True),
        train=(x[:40], y[:40]),
        test=(x[40:], y[40:]),
        batch_size=8,
        rule="sphere_sgd",
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """A finished study with fine-tuning and averages, from 1 where it converges to 100 where it does not."""
    with workerless(), undrawn():
        return lratlas.explore(
            blobs,
            folder=tmp_path_factory.mktemp("comparing") / "study",
            pretrain={"lrs": [1e-2, 1e-1, 10.0, 100.0], "steps": 400, "repeats": 3},
            finetune={"lrs": [1e-3, 1e-2], "steps": 10},
            average={"counts": [2]},
            training={"compile": False, "strategy": "stack"},
        )


@pytest.fixture
def copied(whole: Atlas, tmp_path: Path) -> Copied:
    """A function that makes a copy of the study, under another name if one is given."""

    def copy(folder: str, name: str = "") -> Path:
        made = Path(shutil.copytree(whole.folder, tmp_path / folder))
        if name:
            spec = made / "spec.toml"
            spec.write_text(re.sub(r"(?m)^name = .*$", f'name = "{name}"', spec.read_text(), count=1))
        return made

    return copy


def test_it_is_a_public_name() -> None:
    assert lratlas.compare is compare


def test_folders_and_atlases_in_the_order_given(whole: Atlas, copied: Copied) -> None:
    found = compare([copied("b", "second"), whole, str(copied("c", "third"))])
    assert found.table.schema == COMPARISON
    assert found.table["study"].to_list() == ["second", whole.spec.name, "third"]
    assert found.table["elr"].to_list() == [True] * 3
    # The copies are the same study.
    for column in ("convergence", "best_plr", "best_gain", "average_plr"):
        assert found.table[column].n_unique() == 1


def test_the_table_agrees_with_the_study(whole: Atlas) -> None:
    (row,) = compare([whole]).table.to_dicts()
    bounds = {each["boundary"]: each for each in whole.boundaries.to_dicts()}
    assert row["convergence"] == bounds["convergence"]["value"]
    assert row["convergence"] is not None
    assert row["best_over_threshold"] == row["best_plr"] / row["convergence"]
    tuned = whole.table("runs").filter(stage="finetune", flr=1e-3, plr=row["best_plr"])
    assert row["best_score"] == pytest.approx(tuned["test_accuracy"].mean())
    assert row["seeds"] == 3


@pytest.mark.parametrize(("claim", "of"), [("best-fine-tuned", "best"), ("best-averaged", "average")])
def test_a_gain_is_the_same_wherever_it_is_shown(whole: Atlas, claim: str, of: str) -> None:
    found = compare([whole])
    (row,) = found.table.to_dicts()
    ((effect, low, high),) = whole.table("claims").filter(claim=claim).select("effect", "low", "high").rows()
    assert None not in (effect, low, high)
    assert (row[f"{of}_gain"], row[f"{of}_gain_low"], row[f"{of}_gain_high"]) == (effect, low, high)
    said = f"{plain(100 * effect)} points (95% interval {signed_interval(100 * low, 100 * high)}"
    page = unescape(page_of(whole, Drawn(charts={}, missing={})))
    assert f"{GAIN} is {said}" in page
    (sentence,) = [text for text in whole.summary if said.replace("interval", "interval over seeds") in text]
    assert sentence in page
    assert GAIN[1:] in sentence
    assert f"({signed_interval(100 * low, 100 * high)})" in unescape(found.html())


def test_studies_of_one_name_are_told_apart_by_their_folders(copied: Copied) -> None:
    first, second, other = copied("first"), copied("second"), copied("other", "other")
    names = compare([first, second, other]).table["study"].to_list()
    assert names[2] == "other"
    assert all(str(folder) in name for folder, name in zip((first, second), names, strict=False))


def test_an_unfinished_and_an_unplanned_study_are_not_errors(whole: Atlas, copied: Copied) -> None:
    running, begun = copied("running", "running"), copied("begun", "begun")
    for path in (running / "tables").rglob("*.parquet"):
        if not path.name.startswith("pretrain"):
            path.unlink()
    shutil.rmtree(begun / "tables")
    for name in ("plan.json", "plan-copy.json"):
        (begun / name).unlink()
    found = compare([running, begun, whole])
    rows = found.table.to_dicts()
    assert rows[0]["convergence"] == rows[2]["convergence"]
    assert rows[0]["best_plr"] is None
    assert {name for name, value in rows[1].items() if value is not None} == {"study", "batch_size", "elr", "seeds"} - (
        {"batch_size"} if load(begun).spec.task.batch_size is None else set()
    )
    html = found.html()
    assert "running has no PLR fine-tuned in all seeds." in html
    assert "begun has no convergence threshold within its PLRs." in html


@pytest.mark.parametrize("studies", [[], (), "study"])
def test_nothing_to_compare_is_refused(studies: list[str]) -> None:
    with pytest.raises(StudyError, match="nothing to compare; pass a list of at least one study folder"):
        compare(studies)


def test_a_study_given_twice_is_refused_whichever_way_it_is_named(
    whole: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(whole.folder)
    monkeypatch.chdir(Path(whole.folder).parent)
    for again in (whole.folder, f"{whole.folder}/", "study", Path("..") / Path.cwd().name / "study", tmp_path / "link"):
        with pytest.raises(StudyError, match="is listed twice; list each study once"):
            compare([whole, again])


def test_a_folder_that_is_no_study_is_refused(whole: Atlas, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no study in the empty folder"):
        compare([whole, tmp_path])


def test_in_words_each_study_is_a_column(whole: Atlas, copied: Copied) -> None:
    found = compare([whole, copied("b", "study b")])
    words = readable(found.table)
    assert found.readable().equals(words)
    assert words.columns == ["", whole.spec.name, "study b"]
    cells = dict(zip(words[""], words["study b"], strict=True))
    assert cells["learning rates"] == "effective"
    assert cells["seeds"] == "3"
    assert cells["fine-tuned, lowest FLR"] == "1e-3"
    assert cells["average, checkpoints"] == "2"
    assert cells["fine-tuned, score"] == f"{100 * found.table['best_score'][1]:.1f}%"
    assert cells["convergence threshold (1 to 2)"].count(" to ") == 1  # the interval


def test_the_page_shows_text_as_text_and_is_whole(copied: Copied, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    compare([copied("evil", EVIL), copied("b")]).write_html(page)
    text = page.read_text(encoding="utf-8")
    assert EVIL not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "default-src &#39;none&#39;" in text
    assert 'id="spec-comparison"' in text
    assert not re.search(r"<(link|img|iframe)\b|<script[^>]* src=", text.split('<script type="text/plain"')[0])


def test_a_page_that_cannot_be_written_is_said(whole: Atlas, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"The page cannot be written to .*: No such file or directory\."):
        compare([whole]).write_html(tmp_path / "absent" / "page.html")


def test_the_chart_shows_the_studies(whole: Atlas, copied: Copied) -> None:
    drawn = str(compare([whole, copied("b", "study b")]).chart().to_dict())
    assert "study b" in drawn


def test_a_comparison_shows_a_column_for_each_study(whole: Atlas, copied: Copied) -> None:
    found = compare([whole, copied("b", "study <b>")])
    head, *rows = repr(found).splitlines()
    assert head == "Comparison of blobs, study <b>"
    cells = [[cell.strip() for cell in re.split("[│┆]", row)[1:-1]] for row in rows if row[0] == "│"]
    assert cells == [found.readable().columns, *(list(row) for row in found.readable().rows())]
    html = found._repr_html_()  # pyright: ignore[reportPrivateUsage]
    assert "study &lt;b&gt;</th>" in html
    assert html.count("<tr>") == len(cells)


def test_a_comparison_is_equal_to_itself_only(whole: Atlas):
    found = compare([whole])
    assert found == found  # noqa: PLR0124 - tables inside must not be compared
    assert found != compare([whole])
    assert len({found, *found.entries}) == 2
