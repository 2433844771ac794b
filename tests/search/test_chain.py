import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lratlas.files import KEY, open_json, seal_json
from lratlas.search import verify
from lratlas.search.chain import chain_lines, find_breaks, restore_order
from lratlas.search.journal import END, add_results, open_folder, read_lines, read_results, withdraw_results
from lratlas.search.verify import faults, set_aside
from lratlas.study.folder import JOURNAL, Folder
from search.find_helpers import a_search
from search.test_journal import made


def chain(length: int) -> list[bytes]:
    return chain_lines([{"number": number} for number in range(length)])


CHAINS = st.integers(2, 8).map(chain)


@given(lines=CHAINS)
def test_a_chain_as_it_was_written_has_no_breaks(lines: list[bytes]):
    assert find_breaks(list(lines)) == []
    assert restore_order(lines) == lines


@given(lines=CHAINS, data=st.data())
def test_a_line_that_was_removed_or_repeated_breaks_the_chain(lines: list[bytes], data: st.DataObject):
    at = data.draw(st.integers(0, len(lines) - 2))
    assert find_breaks([*lines[:at], *lines[at + 1 :]]) == [at + 1]
    repeated = [*lines[: at + 1], *lines[at:]]
    assert find_breaks([*repeated]) == [at + 2]
    assert restore_order(repeated) == lines


@given(lines=CHAINS, data=st.data())
def test_lines_in_another_order_break_the_chain_and_are_put_back(lines: list[bytes], data: st.DataObject):
    moved = data.draw(st.permutations(lines))
    assert bool(find_breaks([*moved])) == (moved != lines)
    assert restore_order(moved) == lines


def test_lines_of_earlier_versions_come_first():
    old = [json.dumps({"number": number}).encode() for number in range(3)]
    lines = [*old, *chain_lines([{"number": 3}, {"number": 4}], old[-1])]
    assert find_breaks([*old]) == find_breaks([*lines]) == []
    assert find_breaks([*lines[:2], *lines[3:]]) == [3], "the last one of them is bound to the first one of these"
    assert find_breaks([*lines, old[0]]) == [6]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    open_folder(tmp_path, a_search().model_dump())
    for lr in (0.1, 0.2, 0.3, 0.4):
        add_results(tmp_path, [made(lr)])
    withdraw_results(tmp_path, [made(0.4).segment.name])
    return tmp_path


def told(folder: Path) -> list[float]:
    return [each.segment.lr for each in read_results(folder)]


SPOILED: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str, list[float]]] = {
    "the first one removed": (lambda lines: lines[1:], "line 1 does not follow the line before it", [0.2, 0.3]),
    "one removed": (lambda lines: [*lines[:1], *lines[2:]], "line 2 does not follow the line before it", [0.1, 0.3]),
    "the last one removed": (lambda lines: lines[:-1], "has lost its last lines", [0.1, 0.2, 0.3, 0.4]),
    "all removed": (lambda lines: lines[:0], "has lost its last lines", []),
    "one doubled": (
        lambda lines: [*lines[:2], *lines[1:]],
        "line 3 does not follow the line before it",
        [0.1, 0.2, 0.3],
    ),
    "one at another place": (lambda lines: [*lines[-1:], *lines[:-1]], "line 1 does not follow", [0.1, 0.2, 0.3]),
}


@pytest.mark.parametrize("deed", SPOILED)
def test_a_journal_with_other_lines_is_named_and_mended(deed: str, folder: Path):
    spoil, what, left = SPOILED[deed]
    assert faults(folder) == []
    lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    (folder / JOURNAL).write_bytes(b"".join(spoil(lines)))
    found = faults(folder)
    assert {each.path for each in found} == {JOURNAL}
    assert found[0].what.startswith(what)
    set_aside(folder, found)
    assert faults(folder) == []
    assert told(folder) == left
    add_results(folder, [made(0.5)])
    assert faults(folder) == []


def test_a_line_that_was_altered_and_sealed_again_breaks_the_chain(folder: Path):
    lines = (folder / JOURNAL).read_text().splitlines()
    lines[1] = seal_json(open_json(lines[1]) | {"value": 0.001}).strip()
    (folder / JOURNAL).write_text("\n".join([*lines, ""]))
    assert [each.what for each in faults(folder)] == ["line 3 does not follow the line before it"]


@pytest.mark.parametrize("deed", ["removed", "altered", "a folder", "a link"])
def test_the_end_of_a_journal_is_written_again(deed: str, folder: Path):
    end = folder / END
    text = end.read_text()
    end.unlink()
    if deed == "altered":
        end.write_text(text.replace("a", "b"))
    elif deed == "a folder":
        end.mkdir()
    elif deed == "a link":
        end.symlink_to("/nowhere/at/all")
    found = faults(folder)
    assert [each.path for each in found] == [END]
    set_aside(folder, found)
    assert (faults(folder), end.read_text()) == ([], text)


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_kill_between_the_two_writes_is_no_fault(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lratlas.search.journal.write_file", stop)
    with pytest.raises(KeyboardInterrupt):
        add_results(folder, [made(0.5)])
    assert (faults(folder), told(folder)) == ([], [0.1, 0.2, 0.3, 0.5])


def test_a_journal_of_an_earlier_version_grows_on(folder: Path):
    lines = [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]
    old = [seal_json({name: value for name, value in line.items() if name not in {KEY, "after"}}) for line in lines]
    (folder / JOURNAL).write_text("".join(old))
    (folder / END).unlink()
    assert (faults(folder), told(folder)) == ([], [0.1, 0.2, 0.3])
    add_results(folder, [made(0.5)])
    assert (faults(folder), told(folder)) == ([], [0.1, 0.2, 0.3, 0.5])
    assert (folder / JOURNAL).read_text().startswith("".join(old))


def test_a_line_that_is_added_during_the_check_is_no_fault(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def read_and_add(folder: Path) -> list[bytes]:
        lines = read_lines(folder)
        if len(lines) < 6:
            add_results(folder, [made(0.5)])
        return lines

    monkeypatch.setattr(verify, "read_lines", read_and_add)
    assert verify.faults(folder) == []
    assert told(folder) == [0.1, 0.2, 0.3, 0.5]


def test_a_kill_while_a_journal_is_mended_loses_no_results(folder: Path, monkeypatch: pytest.MonkeyPatch):
    lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    (folder / JOURNAL).write_bytes(b"".join([*lines[:2], *lines[1:]]))
    with monkeypatch.context() as killed:
        killed.setattr(Folder, "write_bytes", stop)
        with pytest.raises(KeyboardInterrupt):
            set_aside(folder, faults(folder))
    assert told(folder) == [0.1, 0.2, 0.3]
    set_aside(folder, faults(folder))
    assert (faults(folder), told(folder)) == ([], [0.1, 0.2, 0.3])


def test_results_are_stored_even_if_their_end_cannot_be_written(folder: Path):
    (folder / END).unlink()
    (folder / END).mkdir()
    add_results(folder, [made(0.5)])
    assert told(folder) == [0.1, 0.2, 0.3, 0.5]
    assert [each.path for each in faults(folder)] == [END]
