"""Asking and telling: alone, in threads, and in processes that are killed."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import lratlas
from lratlas.errors import PathError, SearchError, SpecError
from lratlas.search import journal, rungs
from lratlas.search.advice import Advice
from lratlas.search.finder import Finder
from lratlas.search.segments import Segment, SegmentResult
from lratlas.study.folder import JOURNAL
from lratlas.thresholds import Thresholds
from search.find_helpers import STEPS
from search.finder_helpers import LRS, VALLEY, a_finder, trained

ROOT = Path(__file__).parents[2]

WORKER = """
import sys, time
from pathlib import Path
from search.finder_helpers import a_finder, trained

mark, hangs_at = Path(sys.argv[2]), int(sys.argv[3])
finder = a_finder(Path(sys.argv[1]))
told = 0
while asked := finder.ask():
    if told == hangs_at:
        mark.write_text(asked.name)
        time.sleep(60)
    finder.tell(asked, **trained(asked))
    told += 1
    time.sleep(0.01)
mark.write_text(str(told))
print(finder.advice().lr)
"""


def trained_all(finder: Finder, *, most: int = 1000) -> list[Segment]:
    """Ask and tell until the search is over or enough was reported; the segments in order."""
    segments = list[Segment]()
    while len(segments) < most and (asked := finder.ask()):
        finder.tell(asked, **trained(asked))
        segments.append(asked)
    return segments


def facts(advice: Advice) -> dict[str, object]:
    """All that an advice says but for the wall time."""
    tables = {"evidence": advice.evidence.drop("seconds").to_dicts(), "compared": advice.compared.to_dicts()}
    return {**vars(advice), **tables}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Finder:
    """A search that one finder made from the beginning to the end."""
    finder = a_finder(tmp_path_factory.mktemp("alone"))
    trained_all(finder)
    return finder


def test_asking_and_telling_comes_to_an_end_and_an_advice(alone: Finder):
    assert alone.ask() is None
    assert alone.ask_all() == []
    assert alone.finished
    advice = alone.advice()
    # From the best LR's state the full training can continue.
    assert alone.needed() == {advice.segment}
    assert advice.low is not None
    assert advice.high is not None
    assert advice.low <= VALLEY.best <= advice.high
    assert advice.cost <= 1.5


def test_it_is_a_public_name():
    assert lratlas.Finder is Finder


def test_what_was_told_is_in_the_results(tmp_path: Path):
    finder = a_finder(tmp_path)
    assert not finder.results
    asked = finder.ask()
    assert asked is not None
    kept = finder.tell(asked, value=0.5, averaged=0.4, losses=[2.0, 1.0], seconds=3.0)
    assert kept == SegmentResult(segment=asked, value=0.5, averaged=0.4, losses=(2.0, 1.0), seconds=3.0)
    assert finder.results == (kept,)
    assert not finder.finished


def test_the_time_between_asking_and_telling_is_kept(tmp_path: Path):
    finder = a_finder(tmp_path)
    asked = finder.ask()
    assert asked is not None
    began = time.monotonic()
    time.sleep(0.02)
    kept = finder.tell(asked, value=0.5)
    assert 0.02 <= kept.seconds <= time.monotonic() - began + 0.02


@pytest.mark.parametrize("told", [0, 1, 9, 20])
def test_a_search_goes_on_where_it_ended(told: int, alone: Finder, tmp_path: Path):
    before = trained_all(a_finder(tmp_path), most=told)
    finder = a_finder(tmp_path)
    assert [each.segment for each in finder.results] == before
    after = trained_all(finder)
    assert [*before, *after] == [each.segment for each in alone.results]
    assert facts(finder.advice()) == facts(alone.advice())


def test_other_settings_are_another_search(tmp_path: Path):
    a_finder(tmp_path)
    with pytest.raises(SearchError, match=r"budget = 1\.5, but 2\.0"):
        a_finder(tmp_path, budget=2)


def test_a_search_is_reopened_without_its_settings(tmp_path: Path):
    first = a_finder(tmp_path, budget=2, direction="maximize", tolerance=0.01, resumable=False, anneal=False)
    told = trained_all(first, most=3)
    again = Finder(tmp_path)
    assert again.search == first.search
    assert [each.segment for each in again.results] == told
    assert a_finder(tmp_path).search == first.search
    with pytest.raises(
        SearchError, match=r"has steps = \d+, but 99 was requested; anneal = False, but True was requested"
    ):
        Finder(tmp_path, steps=99, budget=2.0, anneal=True)
    with pytest.raises(SpecError, match="`tolerance` is 2"):
        Finder(tmp_path, tolerance=2)


def test_a_new_search_needs_steps(tmp_path: Path):
    with pytest.raises(
        SpecError, match=r"There is no search in .*new; a new search needs steps, the optimizer steps of"
    ):
        Finder(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_search_opens_for_reading_where_nothing_can_be_written(tmp_path: Path):
    finder = a_finder(tmp_path)
    trained_all(finder, most=len(LRS))
    before = sorted(tmp_path.rglob("*"))
    opened = lratlas.load(tmp_path)
    assert isinstance(opened, Finder)
    assert facts(opened.advice()) == facts(finder.advice())
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(SpecError, match="is a search, and thresholds only apply to studies"):
        lratlas.load(tmp_path, thresholds=Thresholds())


def test_a_search_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert a_finder(Path("~/search")).folder == tmp_path / "search"
    assert Finder("~/search").search.steps == STEPS
    assert isinstance(lratlas.load("~/search"), Finder)


def test_settings_may_be_of_other_libraries(tmp_path: Path):
    given: dict[str, Any] = {"steps": np.int64(640), "lrs": np.geomspace(0.01, 1, 3), "budget": torch.tensor(2)}
    given["tolerance"] = np.float32(0.25)
    search = Finder(tmp_path, **given).search
    assert search == Finder(tmp_path, steps=640, lrs=[0.01, 0.1, 1.0], budget=2.0, tolerance=0.25).search
    assert (type(search.steps), type(search.budget), {type(lr) for lr in search.lrs}) == (int, float, {float})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": True}, "`steps` is true, but must be"),
        ({"budget": True}, "`budget` is true, but must be"),
        ({"budget": "2"}, "`budget` is '2', but must be"),
        ({"lrs": 0.1}, r"`lrs` is 0\.1, but must be a list"),
        ({"lrs": "0.1"}, r"`lrs` is '0\.1', but must be a list"),
        ({"lrs": [0.1, 1e-40]}, r"`lrs` holds 1e-40, but every LR must be from 1\.18e-38 to 3\.4e\+38"),
    ],
)
def test_settings_that_are_no_numbers_are_refused(settings: dict[str, Any], said: str, tmp_path: Path):
    with pytest.raises(SpecError, match=said):
        a_finder(tmp_path / "new", **settings)


@pytest.mark.parametrize("value", ["good", True, [0.5, 0.6], np.ones(2), object()])
def test_what_is_told_must_be_a_number(value: Any, tmp_path: Path):
    finder = a_finder(tmp_path)
    asked = finder.ask()
    assert asked is not None
    with pytest.raises(SearchError, match=r"value is .*; it must be a number"):
        finder.tell(asked, value=value)
    with pytest.raises(SearchError, match=r"a loss is .*; it must be a number"):
        finder.tell(asked, value=0.5, losses=[1.0, value])
    assert finder.tell(asked, value=0.5).value == 0.5


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_seconds_are_a_number_of_at_least_0(seconds: float, tmp_path: Path):
    finder = a_finder(tmp_path)
    asked = finder.ask()
    assert asked is not None
    with pytest.raises(SearchError, match=r"^seconds is .*; it must be a number of at least 0\.$"):
        finder.tell(asked, value=0.5, seconds=seconds)
    assert finder.tell(asked, value=0.5, seconds=2).seconds == 2


@pytest.mark.parametrize("segment", ["lr0.1", None, 0.1])
def test_only_a_segment_has_a_result(segment: Any, tmp_path: Path):
    finder = a_finder(tmp_path)
    for told in (lambda: finder.tell(segment, value=0.5), lambda: finder.fail(segment, "it broke")):
        with pytest.raises(SearchError, match=r"^The segment is .*; pass the one that ask\(\) returned\.$"):
            told()


def test_what_was_trained_side_by_side_is_recorded_together_or_not_at_all(tmp_path: Path):
    finder = a_finder(tmp_path)
    asked = finder.ask_all()
    wrong = [*((each, {"value": 0.5}) for each in asked[1:]), (asked[0], {"value": "good"})]
    with pytest.raises(SearchError, match="value is 'good'"):
        finder.tell_all(wrong)
    with pytest.raises(SearchError, match=r"^tell\(\) has no argument worth; allowed are averaged, error, losses, "):
        finder.tell_all([(asked[0], {"worth": 0.5})])
    assert finder.results == ()
    told = finder.tell_all([(each, {"value": 0.5, "seconds": 1.0}) for each in asked])
    assert tuple(told) == finder.results
    assert [each.segment for each in told] == asked


def test_a_folder_is_a_path():
    with pytest.raises(PathError, match=r"^None is not a path; give a string or a pathlib\.Path\.$"):
        Finder(cast("Any", None), steps=100)


def test_a_setting_out_of_range_leaves_no_folder(tmp_path: Path):
    with pytest.raises(SpecError, match="`steps` is 0"):
        a_finder(tmp_path / "new", steps=0)
    assert not (tmp_path / "new").exists()


def test_a_segment_is_told_once(tmp_path: Path):
    finder = a_finder(tmp_path)
    asked = finder.ask()
    assert asked is not None
    finder.tell(asked, value=0.5)
    for again in (lambda: finder.tell(asked, value=0.6), lambda: finder.fail(asked, "it broke")):
        with pytest.raises(SearchError, match=r"lr0\.0001-seed0-to100 did not come from ask\(\) of this finder"):
            again()
    assert [each.value for each in finder.results] == [0.5]


def test_a_segment_of_another_finder_is_refused(tmp_path: Path):
    one, other = a_finder(tmp_path), a_finder(tmp_path)
    first, second = one.ask(), other.ask()
    assert first is not None
    assert second is not None
    assert first.lr != second.lr
    with pytest.raises(SearchError, match=r"did not come from ask\(\) of this finder"):
        other.tell(first, value=0.5)
    one.release()
    other.release()


def test_a_segment_with_the_name_of_another_is_refused(tmp_path: Path):
    finder, longer = a_finder(tmp_path / "one"), a_finder(tmp_path / "other", lrs=[0.0001 * (1 + 1e-9), 1.0])
    asked, similar = finder.ask(), longer.ask()
    assert asked is not None
    assert similar is not None
    assert asked.name == similar.name
    with pytest.raises(SearchError, match="did not come from ask"):
        finder.tell(similar, value=0.5)


def test_one_finder_may_hold_several_segments(tmp_path: Path):
    finder = a_finder(tmp_path)
    asked = finder.ask_all()
    assert [each.lr for each in asked] == list(LRS)
    with pytest.raises(
        SearchError, match=r"Nothing can be trained before the result of lr0\.0001-seed0-to100 is recorded"
    ):
        finder.ask()
    with pytest.raises(SearchError, match=r"release\(\) returns"):
        finder.ask_all()
    for each in reversed(asked):
        finder.tell(each, **trained(each))
    following = finder.ask()
    assert following is not None
    assert following.parent in {each.name for each in asked}


def test_what_is_given_back_can_be_asked_for_again(tmp_path: Path):
    one, other = a_finder(tmp_path), a_finder(tmp_path)
    first = one.ask()
    assert first is not None
    one.release()
    assert other.ask() == first
    with pytest.raises(SearchError, match="did not come from ask"):
        one.tell(first, value=0.5)
    other.release()
    assert one.ask() == first
    one.release()


def test_all_that_others_leave_is_asked_for(tmp_path: Path):
    one, other = a_finder(tmp_path), a_finder(tmp_path)
    held = one.ask()
    assert held is not None
    assert [each.lr for each in other.ask_all()] == list(LRS[1:])
    one.release()
    other.release()


def test_asking_waits_for_what_others_train(tmp_path: Path):
    one, other = a_finder(tmp_path), a_finder(tmp_path)
    *most, last = one.ask_all()
    for each in most:
        one.tell(each, **trained(each))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other.ask)
        time.sleep(0.1)
        assert not waiting.done()
        one.tell(last, **trained(last))
        following = waiting.result(timeout=10)
    assert following is not None
    assert following.start == last.stop
    other.release()


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("place", "failure"),
    [
        ("value", "the validation metric is not finite"),
        ("averaged", "the validation metric is not finite"),
        ("losses", "loss 2 of 3 is not finite"),
    ],
)
def test_a_number_that_is_not_finite_is_a_result(place: str, failure: str, broken: float, tmp_path: Path):
    finder = a_finder(tmp_path)
    asked = finder.ask()
    assert asked is not None
    told: dict[str, Any] = {"value": 0.5, "averaged": 0.5, "losses": [2.0, 1.0, 0.5]}
    told[place] = [2.0, broken, 0.5] if place == "losses" else broken
    kept = finder.tell(asked, **told)
    assert (kept.failure, kept.value, kept.averaged) == (failure, None, None)
    assert repr(finder.results) == repr((kept,))
    # It is not gone on with.
    assert asked.lr not in {each.lr for each in trained_all(finder)}
    assert finder.advice().evidence["regime"][0] == "diverging"


def test_a_loss_that_is_not_finite_says_enough(tmp_path: Path):
    finder = a_finder(tmp_path)
    asked = finder.ask()
    assert asked is not None
    assert finder.tell(asked, losses=[1.0, math.nan]).failure == "loss 2 of 2 is not finite"


def test_without_a_metric_nothing_is_told(tmp_path: Path):
    finder = a_finder(tmp_path)
    asked = finder.ask()
    assert asked is not None
    with pytest.raises(SearchError, match=r"lr0.* has neither value nor averaged"):
        finder.tell(asked, losses=[1.0])
    assert not finder.results
    finder.tell(asked, value=0.5)


def one_element(value: float) -> torch.Tensor:
    return torch.tensor([value])


@pytest.mark.parametrize("number", [np.float32, np.float64, np.array, torch.tensor, one_element])
def test_numbers_of_other_libraries_are_welcome(number: Callable[[float], Any], tmp_path: Path):
    finder = a_finder(tmp_path)
    asked = finder.ask()
    assert asked is not None
    told = finder.tell(asked, value=number(0.5), averaged=number(0.25), losses=[number(2.0), number(1.0)])
    assert (told.value, told.averaged, told.losses) == (0.5, 0.25, (2.0, 1.0))
    assert finder.results == (told,)


def test_arrays_of_losses_are_welcome(tmp_path: Path):
    finder = a_finder(tmp_path)
    for losses in (np.array([2.0, 1.0]), torch.tensor([2.0, 1.0])):
        asked = finder.ask()
        assert asked is not None
        assert finder.tell(asked, value=1, losses=losses).losses == (2.0, 1.0)  # pyright: ignore[reportArgumentType]


def test_numbers_of_other_libraries_are_settings_too(tmp_path: Path):
    lrs = np.array(LRS)
    finder = Finder(tmp_path, steps=STEPS, lrs=lrs, budget=2, tolerance=0)  # pyright: ignore[reportArgumentType]
    assert finder.search.lrs == LRS
    assert (finder.search.budget, finder.search.tolerance) == (2.0, 0.0)


@pytest.mark.parametrize(("reason", "kept"), [("the card is full", "the card is full"), ("", "no reason given")])
def test_a_failure_is_kept_with_its_reason(reason: str, kept: str, tmp_path: Path):
    finder = a_finder(tmp_path)
    asked = finder.ask()
    assert asked is not None
    told = finder.fail(asked, reason, losses=[2.0])
    assert (told.failure, told.value, told.averaged, told.losses) == (kept, None, None, (2.0,))
    assert finder.results == (told,)
    assert asked.lr not in {each.lr for each in trained_all(finder)}


def test_a_failure_without_losses_is_part_of_an_advice(tmp_path: Path):
    finder = a_finder(tmp_path)
    asked = finder.ask()
    assert asked is not None
    finder.fail(asked, "the card is full")
    trained_all(finder)
    assert "the card is full" in str(finder.advice())


def test_without_results_there_is_no_advice(tmp_path: Path):
    with pytest.raises(SearchError, match="No results yet"):
        a_finder(tmp_path).advice()


def test_what_could_not_be_written_can_be_told_again(tmp_path: Path):
    finder = a_finder(tmp_path)
    asked = finder.ask()
    assert asked is not None
    (tmp_path / JOURNAL).mkdir()
    with pytest.raises(SearchError, match="cannot be written"):
        finder.tell(asked, value=0.5)
    (tmp_path / JOURNAL).rmdir()
    finder.tell(asked, value=0.5)
    assert [each.value for each in finder.results] == [0.5]


def test_threads_share_a_search(alone: Finder, tmp_path: Path):
    with ThreadPoolExecutor(3) as pool:
        shares = list(pool.map(trained_all, [a_finder(tmp_path) for _ in range(3)]))
    finder = a_finder(tmp_path)
    names = [each.name for share in shares for each in share]
    assert sorted(names) == sorted(each.segment.name for each in alone.results)
    assert facts(finder.advice()) == facts(alone.advice())


@contextmanager
def worker(folder: Path, mark: Path, *, hangs_at: int = -1) -> "Generator[subprocess.Popen[str]]":
    """A process that works on a search; it hangs in the middle of a segment after this many, if it is to."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    words = [sys.executable, "-c", WORKER, str(folder), str(mark), str(hangs_at)]
    environment = os.environ | {"PYTHONPATH": path}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            yield process
        finally:
            process.kill()


def awaited(ready: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_processes_share_a_search_though_one_is_killed(alone: Finder, tmp_path: Path):
    folder, first, second = (tmp_path / name for name in ("search", "first", "second"))
    finder = a_finder(folder)
    with worker(folder, first, hangs_at=4) as killed:
        awaited(first.exists)
        assert len(finder.results) == 4
        with worker(folder, second) as other:
            # It trains what the hanging one does not hold.
            awaited(lambda: len(finder.results) > 4)
            held = first.read_text()
            assert held not in {each.segment.name for each in finder.results}
            killed.send_signal(signal.SIGKILL)
            here = trained_all(a_finder(folder))
            advised, _ = other.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    names = [each.segment.name for each in finder.results]
    assert sorted(names) == sorted(each.segment.name for each in alone.results)
    # Four were reported before, and only the one in the middle of which the process was killed was trained again.
    assert held in names
    assert len(here) + int(second.read_text()) == len(names) - 4
    assert len((folder / JOURNAL).read_text().splitlines()) == len(names)
    assert float(advised) == alone.advice().lr
    assert facts(finder.advice()) == facts(alone.advice())


def test_what_failed_is_asked_for_again_and_what_diverged_is_not(tmp_path: Path):
    finder, other = a_finder(tmp_path), a_finder(tmp_path)
    asked = finder.ask_all()
    failed, diverged, *good = asked
    finder.fail(failed, "the disk is full")
    finder.fail(diverged, "the loss was not finite (nan)")
    for each in good:
        finder.tell(each, **trained(each))
    assert other.retry_failed() == (failed.name,)
    assert finder.ask() == failed
    finder.tell(failed, **trained(failed))
    assert {each.segment.name: each.failure for each in other.results} == {
        each.name: "the loss was not finite (nan)" if each == diverged else None for each in asked
    }
    assert a_finder(tmp_path).retry_failed() == ()


def test_a_result_costs_no_more_the_more_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Mock(side_effect=journal.read_line)
    planned = Mock(side_effect=rungs.next_stage)
    finder = Finder(tmp_path, steps=6400, lrs=lratlas.lr_grid(1e-5, 1, per_decade=20))
    monkeypatch.setattr(journal, "read_line", read)
    monkeypatch.setattr("lratlas.search.finder.next_stage", planned)
    for _ in range(50):
        segment = finder.ask()
        assert segment
        finder.tell(segment, value=segment.lr)
    assert finder.ask()
    assert read.call_count == 50  # each line once
    assert planned.call_count == 1  # for the first look at all LRs
