import json
import math
import re
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lratlas.search.program import output
from lratlas.search.program.output import LONGEST_LINE, OutputParser, Tail, describe_missing_metric, shorten


def told(*lines: str, metric: str = "value") -> OutputParser:
    found = OutputParser(metric)
    for line in lines:
        found.take(line.encode())
    return found


def test_losses_and_values_are_taken_from_json_lines() -> None:
    found = told(
        '{"step": 1, "loss": 2.5}', ' {"step": 2, "loss": 1}\r', '{"value": 0.5}', '{"value": 0.87, "averaged": 0.88}'
    )
    assert found.losses() == (2.5, 1.0)
    assert (found.value, found.averaged, found.step) == (0.87, 0.88, 2)
    assert found.why_diverged() is None


def test_a_metric_has_its_own_name() -> None:
    found = told(
        '{"value": 3, "averaged": 4, "val_accuracy": 0.5, "averaged_val_accuracy": 0.6}', metric="val_accuracy"
    )
    assert (found.value, found.averaged) == (0.5, 0.6)


@pytest.mark.parametrize(
    "line",
    ["", "epoch 3", "{", "{}", "[1, 2]", '"value"', '{"value": true}', '{"value": null}', '{"value": {"a": 1}}',
     '{"value": "good"}', '{"loss": [1]}', '{"value": 1', '{"a":' * 100_000, "\udcff{",
     '{"value": ' + "9" * 5000 + "}"],
)  # fmt: skip
def test_anything_else_is_passed_over(line: str) -> None:
    found = OutputParser("value")
    found.take(line.encode(errors="surrogateescape"))
    assert found.value is None
    assert found.losses() == ()


@given(st.binary())
def test_no_line_is_too_strange(line: bytes) -> None:
    OutputParser("value").take(line)


def test_two_losses_that_are_not_finite_are_a_divergence_and_one_is_not() -> None:
    once = told('{"step": 7, "loss": NaN}', '{"step": 8, "loss": 1.0}')
    assert once.why_diverged() is None
    assert once.losses() == (1.0,)
    at_the_end = told('{"step": 7, "loss": Infinity}')
    assert at_the_end.diverged is None
    assert at_the_end.why_diverged() == "the loss was not finite (inf) at step 7"
    twice = told('{"loss": NaN, "step": 7}', '{"step": 8, "loss": "nan"}', '{"step": 9, "loss": 1.0}')
    assert twice.diverged == twice.why_diverged() == "the loss was not finite (nan) at step 7"
    assert told('{"loss": 1}', '{"loss": NaN}', '{"loss": NaN}').diverged == "the loss was not finite (nan) in record 2"


def test_many_losses_become_means_in_bounded_memory() -> None:
    found = OutputParser("value")
    losses = [math.sin(step) for step in range(20_000)]
    for loss in losses:
        found.take(json.dumps({"loss": loss}).encode())
    kept = found.losses()
    assert len(kept) <= 4096
    assert kept[0] == pytest.approx(fmean(losses[:8]))
    assert fmean(kept) == pytest.approx(fmean(losses), abs=1e-9)


LINES = st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b" ").replace(b"\r", b" ")), max_size=30)


@given(LINES, st.data())
def test_a_growing_file_is_read_line_by_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("tail") / "out"
    tail = Tail(path)
    assert list(tail.lines()) == []
    content = b"\n".join(lines)
    read = list[bytes]()
    while content:
        size = data.draw(st.integers(1, len(content)))
        with path.open("ab") as file:
            file.write(content[:size])
        content = content[size:]
        read += tail.lines()
    read += tail.lines(to_the_end=True)
    assert b"\n".join(read) == b"\n".join(lines).removesuffix(b"\n")


def test_a_line_without_end_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b'{"value": 1}\n' + b"x" * (3 << 20) + b'\n{"value": 2}\n' + b"y" * (2 << 20))
    assert list(Tail(path).lines(to_the_end=True)) == [b'{"value": 1}', b'{"value": 2}']


BAR = "\r 40%|####      | 2/5 [00:01<00:02, 1.40it/s]"


@pytest.mark.parametrize(
    "printed",
    [
        f'{BAR}{{"value": 0.5}}\n',
        f'{BAR} loss=0.3 {{"value": 0.5}}\n',
        f'{BAR}\r{{"value": 0.5}}{BAR}\n',
        f'{{"value": 0.5}}{BAR}{BAR}\n',
        f'{BAR * 30_000}\r\x1b[K{{"value": 0.5}}\n',
        f'\x1b[2K{BAR}\n\x1b[32m{{"value": 0.5}}\x1b[0m\r\n',
        f'{BAR}\r\n\r{{"value": 0.5}}',
    ],
    ids=["behind", "behind a postfix", "between", "before", "far behind", "coloured", "at the end"],
)
def test_records_behind_a_progress_bar_are_read(printed: str, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(printed.encode())
    found, tail = OutputParser("value"), Tail(path)
    for line in tail.lines(to_the_end=True):
        assert len(line) < LONGEST_LINE
        found.take(line)
    assert found.value == 0.5


def test_text_before_a_record_is_only_passed_over_where_it_is_a_bar() -> None:
    assert told('settings: {"value": 0.5}').value is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            [],
            "reported no 'value'; it printed no JSON records with numbers (use --metric-pattern to read other lines)",
        ),
        (
            ["epoch 1", "", "epoch 2", "{'value': 0.5}"],
            "reported no 'value'; it printed no JSON records with numbers (use --metric-pattern to read other lines);"
            " it printed `epoch 2` and `{'value': 0.5}`",
        ),
        (
            ['{"step": 1}', '{"step": 2, "value": null}'],
            "reported no 'value'; its records have step (select one with --metric);"
            ' it printed `{"step": 2, "value": null}`',
        ),
        (
            ['{"metrics": {"value": 1}}'],
            "reported no 'value'; it printed no JSON records with numbers (use --metric-pattern to read other lines);"
            ' it printed `{"metrics": {"value": 1}}`',
        ),
        (
            ["\x1b[31mred\x1b[0m\x07\tand \x00more" + "!" * 200],
            "reported no 'value'; it printed no JSON records with numbers (use --metric-pattern to read other lines);"
            f" it printed `red and more{'!' * 87}…`",
        ),
    ],
    ids=["nothing", "Python's dictionary", "no number", "nested", "control characters"],
)
def test_what_cannot_be_used_is_quoted(lines: list[str], said: str) -> None:
    found = told(*lines)
    assert describe_missing_metric("value", found.names, found.unread) == f"the command {said}"


@given(st.binary(max_size=300))
def test_what_is_shown_is_short_and_printable(line: bytes) -> None:
    said = shorten(line)
    assert len(said) <= 100
    assert said.isprintable()


@pytest.mark.parametrize(
    ("printed", "value"),
    [
        ([b"val acc: 0.5", b"loss 0.3", b"val acc: 0.75 (best)"], 0.75),
        ([b"\x1b[1mval acc: 0.5\x1b[0m"], 0.5),
        ([b"val acc: 0.5", b'{"value": 0.25}'], 0.25),
        ([b"val acc: none"], None),
    ],
)
def test_a_pattern_finds_the_value_in_other_lines(printed: list[bytes], value: float | None) -> None:
    found = OutputParser("value", re.compile(r"val acc: ([\d.]+)"))
    for line in printed:
        found.take(line)
    assert found.value == value


@given(
    parts=st.lists(st.tuples(st.text("ab\n", max_size=40), st.booleans()), max_size=30),
    kept=st.integers(1, 8),
    longest=st.integers(16, 40),
)
def test_a_file_that_is_shortened_while_it_is_read_loses_no_line(
    parts: list[tuple[str, bool]], kept: int, longest: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("tail") / "out"
    tail, lines = Tail(path), list[bytes]()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(output, "KEPT_END", kept)
        patched.setattr(output, "LONGEST_FILE", longest)
        for text, unread in parts:
            with path.open("a") as file:
                file.write(text)
            if unread:  # more comes between the reading and the shortening
                lines += tail.lines()
                with path.open("a") as file:
                    file.write("more\n")
                tail.shorten()
        lines += tail.lines(to_the_end=True)
    written = "".join(text + "more\n" * unread for text, unread in parts)
    assert b"\n".join(lines).decode().rstrip("\n") == written.rstrip("\n")
