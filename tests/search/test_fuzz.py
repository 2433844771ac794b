"""Whatever stands in the files of a search: it is read, or refused in a sentence."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzzing import mutated, refusal
from lratlas.errors import SearchError
from lratlas.search.journal import SETTINGS, add_results, open_folder, read_results, read_settings
from lratlas.search.program.segment import FILE, judge_of, record_judge
from lratlas.search.segments import SegmentResult, make_segment
from lratlas.study.folder import JOURNAL
from search.find_helpers import a_search

fuzzed = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
TOLD = [
    SegmentResult(
        segment=make_segment(lr=lr, seed=0, start=0, stop=100, parent=None), value=0.5, losses=(2.0, 1.25), seconds=1.5
    )
    for lr in (0.1, 0.2)
]


@fuzzed
@given(data=st.data())
def test_any_journal_is_read_or_refused(tmp_path: Path, data: st.DataObject):
    (tmp_path / JOURNAL).unlink(missing_ok=True)
    for each in TOLD:
        add_results(tmp_path, [each])
    good = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(data.draw(mutated(good) | st.binary(max_size=60)))
    assert "\n" not in refusal(lambda: read_results(tmp_path), SearchError)


def test_a_line_break_in_a_damaged_name_is_refused_in_one_line(tmp_path: Path):
    add_results(tmp_path, TOLD[:1])
    text = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(text.replace(b'"checksum"', b'"\\nchecksum"'))
    said = refusal(lambda: read_results(tmp_path), SearchError)
    assert "is damaged" in said
    assert "\n" not in said


@fuzzed
@given(place=st.integers(0), bit=st.integers(0, 7))
def test_no_flipped_bit_in_a_journal_changes_an_result(tmp_path: Path, place: int, bit: int):
    (tmp_path / JOURNAL).unlink(missing_ok=True)
    for each in TOLD:
        add_results(tmp_path, [each])
    text = bytearray((tmp_path / JOURNAL).read_bytes())
    text[place % len(text)] ^= 1 << bit
    (tmp_path / JOURNAL).write_bytes(text)
    if not refusal(lambda: read_results(tmp_path), SearchError):
        # The end of the last line may be lost, as of one that was cut off.
        assert read_results(tmp_path) in (TOLD, TOLD[:1])


@fuzzed
@given(data=st.data())
def test_any_settings_are_read_or_refused(tmp_path: Path, data: st.DataObject):
    (tmp_path / SETTINGS).unlink(missing_ok=True)
    open_folder(tmp_path, a_search().model_dump())
    good = (tmp_path / SETTINGS).read_bytes()
    (tmp_path / SETTINGS).write_bytes(data.draw(mutated(good) | st.binary(max_size=60)))
    assert "\n\n" not in refusal(lambda: read_settings(tmp_path), SearchError)


@fuzzed
@given(data=st.data())
def test_any_record_of_a_command_is_read_or_refused(tmp_path: Path, data: st.DataObject):
    record_judge(tmp_path, "loss", metric="accuracy")
    good = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(data.draw(mutated(good) | st.binary(max_size=60)))
    said = refusal(lambda: judge_of(tmp_path, metric="accuracy"), SearchError)
    assert "\n" not in said
    assert said or judge_of(tmp_path, metric="accuracy") == "loss"
