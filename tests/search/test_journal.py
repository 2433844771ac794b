import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from lratlas.errors import SearchError, SpecError
from lratlas.search.journal import (
    CHECKPOINT,
    SETTINGS,
    add_results,
    checkpoint_of,
    claim,
    open_folder,
    raise_budget,
    read_results,
    read_settings,
    withdraw_results,
)
from lratlas.search.segments import SegmentResult, make_segment
from lratlas.study.folder import JOURNAL
from search.find_helpers import a_search

SRC = Path(__file__).parents[2] / "src"
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)

HOLDER = """
import sys
from pathlib import Path
from lratlas.search.journal import claim
held = claim(Path(sys.argv[1]), "lr0.1-seed0-to100")
print("held" if held else "refused", flush=True)
sys.stdin.read()
"""


def segments() -> st.SearchStrategy[Any]:
    return st.builds(
        make_segment,
        lr=st.floats(1e-9, 1e3),
        seed=st.integers(0, 15),
        start=st.integers(0, 100),
        stop=st.integers(101, 10**6),
        parent=st.none() | st.just("the one before"),
        anneal_from=st.none() | st.just(100),
    )


def results() -> st.SearchStrategy[SegmentResult]:
    return st.builds(
        SegmentResult,
        segment=segments(),
        value=st.none() | NUMBER,
        averaged=st.none() | NUMBER,
        losses=st.lists(NUMBER | st.just(math.nan), max_size=5).map(tuple),
        failure=st.none() | TEXT,
        seconds=st.floats(0, 1e6),
    )


def same(one: SegmentResult, other: SegmentResult) -> bool:
    """Whether two results are equal, NaN being equal to NaN."""
    return repr(one) == repr(other)


def made(lr: float, value: float = 0.5) -> SegmentResult:
    return SegmentResult(
        segment=make_segment(lr=lr, seed=0, start=0, stop=100, parent=None), value=value, losses=(2.0, math.nan)
    )


def holder(folder: Path) -> "subprocess.Popen[str]":
    """A process that claims a segment, says whether it could, and keeps it until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        env=os.environ | {"PYTHONPATH": str(SRC)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@settings(max_examples=30)
@given(told=st.lists(results(), max_size=4, unique_by=lambda each: each.segment.name))
def test_what_is_told_is_read_again(told: list[SegmentResult]):
    with tempfile.TemporaryDirectory() as folder:
        for each in told:
            add_results(Path(folder), [each])
        read = read_results(Path(folder))
    assert len(read) == len(told)
    assert all(map(same, read, told))


@settings(max_examples=30)
@given(data=st.data(), last=results())
def test_a_last_line_cut_off_anywhere_does_not_count(data: st.DataObject, last: SegmentResult):
    first, later = made(0.1), made(0.2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        add_results(folder, [first])
        whole = (folder / JOURNAL).stat().st_size
        add_results(folder, [last])
        text = (folder / JOURNAL).read_bytes()
        (folder / JOURNAL).write_bytes(text[: data.draw(st.integers(whole, len(text) - 1))])
        assert list(map(repr, read_results(folder))) == [repr(first)]
        # What is reported next is not glued to the rest.
        add_results(folder, [later])
        assert list(map(repr, read_results(folder))) == [repr(first), repr(later)]


def test_a_first_line_cut_off_leaves_an_empty_journal(tmp_path: Path):
    (tmp_path / JOURNAL).write_bytes(b'{"segment": {"na')
    assert read_results(tmp_path) == []
    add_results(tmp_path, [made(0.1)])
    assert len(read_results(tmp_path)) == 1


def test_without_a_journal_nothing_was_told(tmp_path: Path):
    assert read_results(tmp_path) == []


def test_of_two_results_of_a_segment_the_first_counts(tmp_path: Path):
    for value in (0.5, 0.7):
        add_results(tmp_path, [made(0.1, value)])
    (read,) = read_results(tmp_path)
    assert read.value == 0.5


@settings(max_examples=30)
@given(told=st.lists(results(), min_size=1, max_size=4, unique_by=lambda each: each.segment.name), data=st.data())
def test_what_is_withdrawn_counts_no_more_until_it_is_told_again(told: list[SegmentResult], data: st.DataObject):
    gone = data.draw(st.sets(st.sampled_from([each.segment.name for each in told])))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        add_results(folder, told)
        before = (folder / JOURNAL).read_bytes()
        withdraw_results(folder, sorted(gone))
        assert (folder / JOURNAL).read_bytes().startswith(before)
        left = [each for each in told if each.segment.name not in gone]
        assert list(map(repr, read_results(folder))) == list(map(repr, left))
        add_results(folder, told)
        assert sorted(map(repr, read_results(folder))) == sorted(map(repr, told))


def test_a_damaged_withdrawal_is_named(tmp_path: Path):
    (tmp_path / JOURNAL).write_text('{"withdrawn": 3}\n')
    with pytest.raises(SearchError, match=r"Line 1 of .* is damaged"):
        read_results(tmp_path)


def test_the_journal_is_plain_json(tmp_path: Path):
    add_results(tmp_path, [made(0.1)])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    record = json.loads((tmp_path / JOURNAL).read_text(), parse_constant=refuse)
    assert record["losses"] == [2.0, None]
    assert record["segment"]["lr"] == 0.1


@pytest.mark.parametrize(
    "damaged",
    [
        b"{",
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"[1, 2]",
        b"null",
        b"{}",
        b'{"segment": 3, "losses": []}',
        b'{"losses": []}',
    ],
)
def test_a_damaged_line_is_named(damaged: bytes, tmp_path: Path):
    for lr in (0.1, 0.2, 0.3):
        add_results(tmp_path, [made(lr)])
    lines = (tmp_path / JOURNAL).read_bytes().split(b"\n")
    lines[1] = damaged
    (tmp_path / JOURNAL).write_bytes(b"\n".join(lines))
    with pytest.raises(SearchError, match=r"^Line 2 of .*journal\.jsonl is damaged: "):
        read_results(tmp_path)


def without_checksum(text: str) -> dict[str, Any]:
    """An object as versions before the checksums wrote it."""
    return {name: value for name, value in json.loads(text).items() if name != "checksum"}


def test_a_number_that_was_altered_is_damage(tmp_path: Path):
    add_results(tmp_path, [made(0.1, 0.5)])
    text = (tmp_path / JOURNAL).read_text()
    (tmp_path / JOURNAL).write_text(text.replace("0.5", "0.7", 1))
    with pytest.raises(SearchError, match=r"Line 1 .* does not fit its checksum"):
        read_results(tmp_path)


def test_what_has_no_checksum_yet_is_read_too(tmp_path: Path):
    add_results(tmp_path, [made(0.1)])
    told = read_results(tmp_path)
    (tmp_path / JOURNAL).write_text(json.dumps(without_checksum((tmp_path / JOURNAL).read_text())) + "\n")
    assert list(map(repr, read_results(tmp_path))) == list(map(repr, told))
    open_folder(tmp_path, a_search().model_dump())
    (tmp_path / SETTINGS).write_text(json.dumps(without_checksum((tmp_path / SETTINGS).read_text())))
    assert read_settings(tmp_path) == a_search()


def test_a_field_that_is_unknown_is_damage(tmp_path: Path):
    add_results(tmp_path, [made(0.1)])
    record = without_checksum((tmp_path / JOURNAL).read_text()) | {"mood": "good"}
    (tmp_path / JOURNAL).write_text(json.dumps(record) + "\n")
    with pytest.raises(SearchError, match=r"Line 1 .*mood"):
        read_results(tmp_path)


def test_a_journal_that_is_a_folder_is_named(tmp_path: Path):
    (tmp_path / JOURNAL).mkdir()
    with pytest.raises(SearchError, match=r"journal\.jsonl cannot be read: it is not a regular file"):
        read_results(tmp_path)
    with pytest.raises(SearchError, match=r"journal\.jsonl cannot be written: Is a directory"):
        add_results(tmp_path, [made(0.1)])


def test_settings_are_kept(tmp_path: Path):
    search = a_search(lrs=(0.1, 1 / 3), budget=2.0, direction="maximize", tolerance=0.1, resumable=False, anneal=False)
    folder = tmp_path / "a" / "b"
    open_folder(folder, search.model_dump())
    assert read_settings(folder) == search
    open_folder(folder, search.model_dump())
    assert read_settings(folder) == search


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"steps": 6401}, "steps = 6400, but 6401 was requested"),
        ({"budget": 2.0}, "budget = 1.5, but 2.0 was requested"),
        ({"direction": "maximize"}, "direction = minimize, but maximize"),
        ({"lrs": (0.1,)}, "lrs = "),
        ({"tolerance": 0.0}, "tolerance = 0.01, but 0.0"),
        ({"resumable": False}, "resumable = True, but False"),
        ({"anneal": False}, "anneal = True, but False"),
    ],
)
def test_other_settings_are_refused_by_name(changed: dict[str, object], said: str, tmp_path: Path):
    open_folder(tmp_path, a_search().model_dump())
    before = (tmp_path / SETTINGS).read_bytes()
    with pytest.raises(SearchError) as error:
        open_folder(tmp_path, a_search(**changed).model_dump())
    assert said in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert (tmp_path / SETTINGS).read_bytes() == before


def test_a_budget_is_only_raised(tmp_path: Path):
    raise_budget(tmp_path, 2.0)  # there is no search yet
    assert not list(tmp_path.iterdir())
    search = open_folder(tmp_path, a_search(budget=2.0).model_dump())
    raise_budget(tmp_path, 1.0)
    assert read_settings(tmp_path) == search
    raise_budget(tmp_path, 3)
    assert read_settings(tmp_path) == a_search(budget=3.0)
    with pytest.raises(SpecError, match="`budget` is nan"):
        raise_budget(tmp_path, math.nan)


def test_a_checkpoint_is_that_of_its_segment(tmp_path: Path):
    path = tmp_path / CHECKPOINT
    assert checkpoint_of(tmp_path, "lr1") is None
    save_file({"weight": np.ones(3)}, path, {"segment": "lr1"})
    assert checkpoint_of(tmp_path, "lr1") == path
    assert checkpoint_of(tmp_path, "lr2") is None
    assert checkpoint_of(tmp_path, None) is None
    path.write_bytes(b"damaged")
    assert checkpoint_of(tmp_path, "lr1") is None


def test_results_are_added_all_or_none(tmp_path: Path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        add_results(tmp_path, [made(0.1), made(0.2, math.nan)])
    assert read_results(tmp_path) == []
    add_results(tmp_path, [made(0.1), made(0.2)])
    assert [each.segment.lr for each in read_results(tmp_path)] == [0.1, 0.2]


def test_a_folder_without_a_search_is_named(tmp_path: Path):
    with pytest.raises(SearchError, match=r"There is no search in .*: it has no search\.json"):
        read_settings(tmp_path)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"steps": 0}', b'{"steps": 6400, "moods": 1}', b"\xff"])
def test_damaged_settings_are_named(text: bytes, tmp_path: Path):
    (tmp_path / SETTINGS).write_bytes(text)
    with pytest.raises(SearchError, match=r"search\.json is damaged: "):
        read_settings(tmp_path)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SearchError, match=r"file cannot be written: "):
        open_folder(tmp_path / "file", a_search().model_dump())
    assert (tmp_path / "file").read_text() == "mine"


def test_a_segment_is_claimed_once_until_it_is_released(tmp_path: Path):
    open_folder(tmp_path, a_search().model_dump())
    first = claim(tmp_path, "lr0.1")
    assert first is not None
    assert claim(tmp_path, "lr0.1") is None
    other = claim(tmp_path, "lr0.2")
    assert other is not None
    first.release()
    again = claim(tmp_path, "lr0.1")
    assert again is not None
    for lock in (other, again):
        lock.release()


def test_a_claim_where_there_is_no_folder_is_named(tmp_path: Path):
    (tmp_path / "claims").write_text("a file")
    with pytest.raises(SearchError, match="claims cannot be written: "):
        claim(tmp_path, "lr0.1")


def test_a_claim_keeps_other_processes_off_until_its_own_is_killed(tmp_path: Path):
    open_folder(tmp_path, a_search().model_dump())
    first = holder(tmp_path)
    assert said(first) == "held"
    assert claim(tmp_path, "lr0.1-seed0-to100") is None
    with holder(tmp_path) as second:
        assert said(second) == "refused"
        assert second.stdin is not None
        second.stdin.close()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    freed = claim(tmp_path, "lr0.1-seed0-to100")
    assert freed is not None
    freed.release()
