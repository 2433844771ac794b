import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lratlas.errors import SpecError
from lratlas.search.program.template import PLACEHOLDERS, check_program, placeholders, values_of
from lratlas.search.segments import make_segment

FIRST = make_segment(lr=0.1, seed=3, start=0, stop=80, parent=None)
BRANCH = make_segment(lr=1e-05, seed=0, start=320, stop=400, parent=FIRST.name, anneal_from=320)


def test_what_a_command_can_do_follows_from_its_placeholders() -> None:
    full = placeholders("train --lr {lr} --to {final_lr} --state {checkpoint}")
    assert full.resumable
    assert full.anneals
    bare = placeholders("train --lr {lr} --steps {steps}")
    assert not bare.resumable
    assert not bare.anneals
    whole = placeholders("train {lr} {final_lr} {anneal_from}")
    assert not whole.resumable
    assert whole.anneals


def test_every_placeholder_is_filled_in_place() -> None:
    command = " ".join(f"--{name}={{{name}}}" for name in PLACEHOLDERS)
    filled = placeholders(f"train {command}").fill(values_of(BRANCH, Path("/a folder/checkpoint")))
    assert filled == [
        "train",
        "--lr=1e-05",
        "--final_lr=0.0",
        "--steps=80",
        "--start=320",
        "--stop=400",
        "--epochs=400",
        "--seed=0",
        "--checkpoint=/a folder/checkpoint",
        "--average_from=360",
        "--anneal_from=320",
    ]


def test_a_constant_lr_never_descends() -> None:
    values = values_of(FIRST, Path("x"))
    assert values["final_lr"] == values["lr"] == "0.1"
    assert values["anneal_from"] == values["stop"] == "80"


@given(st.floats(min_value=1e-12, max_value=1e3))
def test_lrs_keep_all_their_digits(lr: float) -> None:
    piece = make_segment(lr=lr, seed=0, start=0, stop=64, parent=None)
    assert float(values_of(piece, Path("x"))["lr"]) == lr


def test_other_braces_are_left_alone() -> None:
    template = placeholders("""sh -c 'echo ${lr} {} {0} {"a": {"lr": {lr}}} {{lr}} a{1,2}'""")
    words = template.fill(values_of(FIRST, Path("x")))
    assert words == ["sh", "-c", """echo ${lr} {} {0} {"a": {"lr": 0.1}} {lr} a{1,2}"""]


@given(st.text(alphabet="ab '\"\\$;|&{}", max_size=12))
def test_values_never_split_or_join_words(name: str) -> None:
    words = placeholders("train {lr} --state={checkpoint}").fill(values_of(FIRST, Path(f"/{name}x")))
    assert words == ["train", "0.1", f"--state=/{name}x"]


@given(st.lists(st.text(alphabet="ab '\"\\$;|&", max_size=8), min_size=1, max_size=5))
def test_words_are_a_shells(words: list[str]) -> None:
    assert list(placeholders(shlex.join([*words, "{lr}"])).words) == [*words, "{lr}"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("", "empty"),
        ("train --lr {lr} 'open", "no closing quotation"),
        ("train --steps {steps}", "no {lr}"),
        ("train --lr ${lr}", "no {lr}"),
        ("train {lr} {stepz} {LR}", "unknown placeholder {LR}, {stepz}; allowed are {lr}, {final_lr}, {steps}"),
        ("train {lr} {final_lr}", "neither {checkpoint} nor {anneal_from}"),
    ],
)
def test_a_bad_command_is_refused(command: str, said: str) -> None:
    with pytest.raises(SpecError) as error:
        placeholders(command)
    assert said in str(error.value)


def test_a_program_must_be_there_and_runnable(tmp_path: Path) -> None:
    text = tmp_path / "train.sh"
    text.write_text("#!/bin/sh\n")
    for command in ("no-such-program-anywhere {lr}", f"'{text}' {{lr}}"):
        with pytest.raises(SpecError, match="is not found or not executable"):
            check_program(placeholders(command))
    text.chmod(0o755)
    check_program(placeholders(f"'{text}' {{lr}}"))
    check_program(placeholders("sh -c 'exit {lr}'"))


def test_what_is_in_brackets_with_the_checkpoint_is_for_trainings_that_continue():
    template = placeholders("train [--resume {checkpoint}] --out {checkpoint} --lr {lr} [a] '[b c]'")
    first = make_segment(lr=0.1, seed=0, start=0, stop=10, parent=None)
    second = make_segment(lr=0.1, seed=0, start=10, stop=20, parent=first.name)
    filled = [template.fill(values_of(each, Path("state"))) for each in (first, second)]
    assert placeholders("train {lr} [{checkpoint}]").fresh == ("train", "{lr}")
    rest = ["--out", "state", "--lr", "0.1", "[a]", "[b c]"]
    assert filled == [["train", *rest], ["train", "--resume", "state", *rest]]
    assert template.resumable
