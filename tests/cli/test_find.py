"""`lratlas find`: for a spec, for a program, with faulty input, and killed in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import pytest
from safetensors.torch import load_file

from cheaper import unfigured, unpaged
from cli.helpers import Ran, contents
from search.command_helpers import program
from search.find_helpers import STEPS
from search.finder_helpers import a_finder, trained

Run = Callable[..., Ran]
Refused = Callable[..., str]

MODULE = """
import os, time
import torch
from torch import nn

class Slow(nn.Sequential):
    def forward(self, x):
        told = "search/journal.jsonl"
        if os.path.exists("hang") and os.path.exists(told) and len(open(told).readlines()) >= 9:
            open("hanging", "w").close()
            time.sleep(60)
        return super().forward(x)

def model():
    return Slow(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))

def data():
    y = torch.arange(192) % 3
    noise = torch.randn(192, 2, generator=torch.Generator().manual_seed(0))
    x = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]])[y] + 0.7 * noise
    return (x[:128], y[:128]), (x[128:], y[128:])
"""
SPEC = """
name = "small"
[task]
model = "find_own:model"
data = "find_own:data"
batch_size = 16
rule = { name = "sgd" }
[pretrain]
lrs = { low = 1e-3, high = 1.0, per_decade = 2 }
steps = 128
"""


def strict(text: str) -> dict[str, Any]:
    """Parse JSON as scripts in other languages do: NaN and Infinity are errors."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def without_times(facts: dict[str, Any]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = facts["evidence"]
    return facts | {"evidence": [row | {"seconds": None} for row in rows]}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module of a user's own and a spec."""
    (tmp_path / "find_own.py").write_text(MODULE)
    (tmp_path / "spec.toml").write_text(SPEC)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "find_own", raising=False)
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def cheaper() -> Iterator[None]:
    """No test here looks at figures for papers."""
    with unfigured():
        yield


@pytest.fixture
def undrawn() -> Iterator[None]:
    with unpaged():
        yield


@pytest.fixture
def here(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command in this process, run in that folder."""
    monkeypatch.chdir(place)
    return run


def test_an_lr_is_found_for_a_spec(here: Run, place: Path):
    ran = here("find", "spec.toml", "-f", "search")
    assert (ran.code, ran.err) == (0, f"lratlas: Imports find_own from {place / 'find_own.py'}.\n")
    table, _, text = ran.out.partition("→ ")
    facts = strict((place / "search" / "advice.json").read_text())
    assert table.splitlines()[0].split()[1::2] == ["lr", "steps", "value", "averaged", "regime"]
    assert len(table.splitlines()) - 2 == len({row["lr"] for row in facts["evidence"]})
    lines = text.splitlines()
    statement = facts["statement"].splitlines()
    assert lines[0].startswith("Use an initial LR of ")
    assert [line.removeprefix("  ") for line in lines[: len(statement)]] == statement
    assert [line.removeprefix("• ") for line in lines[len(statement) : -1]] == facts["warnings"]
    assert lines[-1] == "Report: search/advice.html"
    assert (place / "search" / "advice.html").exists()
    assert facts["steps"] == 128
    assert (facts["verdict"], facts["reason"]) == ("found", "")
    assert facts["expected_low"] <= facts["expected"] <= facts["expected_high"] <= 1
    assert facts["checkpoint"] == "search/checkpoint.safetensors"
    assert {row["lr"] for row in facts["evidence"]} >= {1e-3, 1e-2, 1e-1, 1.0}
    # Written again, the page still knows where the training can continue.
    page = (place / "search" / "advice.html").read_text()
    assert here("report", "search").code == 0
    assert "checkpoint.safetensors" in page
    assert strict((place / "search" / "advice.json").read_text())["checkpoint"] == facts["checkpoint"]
    assert strict(here("status", "search", "--json").out)["advice"]["checkpoint"] == facts["checkpoint"]


@pytest.mark.usefixtures("undrawn")
def test_a_schedule_a_warm_up_and_a_seed_are_searched_with(here: Run, place: Path):
    words = ["--schedule", "cosine", "--warmup", "16", "--seed", "3", "--lrs", "1e-3", "1", "1", "--json"]
    ran = here("find", "spec.toml", "-f", "search", *words)
    assert ran.code == 0, ran
    facts = strict(ran.out)
    assert facts["finish"] == "schedule"
    assert {row["seed"] for row in facts["evidence"]} == {3}
    settings = strict((place / "search" / "search.json").read_text())
    assert (settings["schedule"], settings["warmup"], settings["seed"]) == ("cosine", 16, 3)
    table, *_ = here("find", "spec.toml", "-f", "search", *words[:-1]).out.partition("→ ")
    assert table.splitlines()[0].split()[1::2] == ["lr", "steps", "value", "regime"]


def test_advice_is_printed_whatever_becomes_of_its_page(here: Run, place: Path):
    """By a search that has finished, which trains nothing and does not fail."""
    finder = a_finder(place / "search")
    while (asked := finder.ask()) is not None:
        finder.tell(asked, **trained(asked))
    words = ["--command", "false {lr} {final_lr} {checkpoint}", "--steps", STEPS, "-f", "search", "--workers", "1"]
    for broken in ("lratlas.api.advise.advice_page", "lratlas.report.figures.figure_pdf"):
        with patch(broken, side_effect=RuntimeError("no fonts\nat all")):
            ran = here("find", *words)
        assert ran.code == 0, ran
        assert "Use an initial LR of" in ran.out
        assert ran.err.splitlines()[-1].endswith("no fonts.")
        assert strict((place / "search" / "advice.json").read_text())["verdict"] == "found"
        assert (place / "search" / "advice.html").exists() == ("figure" in broken)


@pytest.mark.usefixtures("undrawn")
def test_lrs_can_be_compared_by_the_loss_of_a_spec(here: Run, place: Path):
    ran = here("find", "spec.toml", "-f", "search", "--metric", "loss", "--lrs", "1e-3", "1", "1", "--json")
    assert ran.code == 0, ran
    assert strict(ran.out)["direction"] == "minimize"
    assert strict((place / "search" / "search.json").read_text())["direction"] == "minimize"


def test_the_page_names_the_schedule(here: Run, place: Path):
    words = ["--steps", "64", "--lrs", "0.01", "1", "1", "--budget", "0.2", "-f", "search", "--workers", "1"]
    command = program(place, after="tell(acc=3 - loss)")
    words += ["--metric", "acc", "--direction", "maximize", "--limit", "3"]
    assert here("find", "--command", command, *words, "--schedule", "linear").code == 0
    assert strict((place / "search" / "search.json").read_text())["limit"] == 3
    page = place / "search" / "advice.html"
    for _ in range(2):
        text = page.read_text()
        assert ">linear schedule<" in text
        assert ">constant<" not in text
        page.unlink()
        assert here("report", "search").code == 0


def test_no_lr_is_advised_where_none_has_an_effect(here: Run, place: Path):
    (place / "flat.py").write_text("import json\nprint(json.dumps({'value': 0.5}))\n")
    words = ["--steps", "64", "--lrs", "0.01", "1", "1", "-f", "search", "--direction", "maximize", "--workers", "1"]
    ran = here("find", "--command", f"{sys.executable} flat.py {{lr}}", *words, "--samples", "100", "--chance", "0.1")
    assert ran.code == 0, ran
    lines = ran.out.partition("→ ")[2].splitlines()
    assert lines[0] == "No LR is recommended."
    assert "passed to the optimizer" in lines[1]
    facts = strict((place / "search" / "advice.json").read_text())
    assert (facts["verdict"], facts["lr"], facts["expected"]) == ("tie", None, None)
    settings = strict((place / "search" / "search.json").read_text())
    assert (settings["samples"], settings["chance"]) == (100, 0.1)


@pytest.mark.usefixtures("undrawn")
def test_a_finished_search_is_told_again_as_json_without_training(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    # The task's own module prints something each time its data are read.
    monkeypatch.setenv("LRATLAS_TEST_NOISE", "1")
    first = run("find", "spec.toml", "-f", "found", "--json", "--steps", "64", "--lrs", "1e-3", "1", "1")
    journal = (home / "found" / "journal.jsonl").read_bytes()
    again = run("find", "spec.toml", "-f", "found", "--json", "--steps", "64", "--lrs", "1e-3", "1", "1")
    assert (first.code, again.code) == (0, 0)
    assert "a message of the data's own" in first.err
    facts = strict(first.out)
    assert again.out == first.out
    assert (home / "found" / "journal.jsonl").read_bytes() == journal
    assert facts == strict((home / "found" / "advice.json").read_text())
    assert facts["steps"] == 64
    assert {row["lr"] for row in facts["evidence"]} >= {1e-3, 1e-2, 1e-1, 1.0}
    assert len(facts["evidence"]) == len(journal.splitlines())


def test_an_lr_is_found_for_a_command(here: Run, place: Path):
    words = ["--steps", "6400", "--lrs", "0.01", "10", "2", "--budget", "1", "--workers", "2", "-f", "search", "--json"]
    ran = here("find", "--command", program(place), *words)
    assert ran.code == 0, ran
    facts = strict(ran.out)
    assert facts["lr"] < 2  # the parabola diverges above
    assert facts["cost"] <= 1
    tried = {row["lr"] for row in facts["evidence"]}
    continued = {row["lr"] for row in facts["evidence"] if row["steps"] > 100}
    assert max(continued) < 2 < max(tried)
    assert (place / "search" / "advice.html").exists()


@pytest.mark.usefixtures("undrawn")
def test_more_may_be_better_for_a_command(here: Run, place: Path):
    command = program(place, after="tell(acc=1 - loss)")
    words = ["--steps", "64", "--lrs", "0.01", "1", "1", "--budget", "0.2", "-f", "search", "--json"]
    ran = here("find", "--command", command, *words, "--metric", "acc", "--direction", "maximize")
    assert ran.code == 0, ran
    facts = strict(ran.out)
    first = {row["lr"]: row["value"] for row in facts["evidence"] if row["steps"] == 1}
    # After one step the loss is half the square of 0.9 - 1.1 lr: the larger the LR, the higher is this accuracy.
    assert first == pytest.approx({lr: 1 - (1 - 1.1 * lr) ** 2 / 2 for lr in first})
    assert facts["best"] == max(row["value"] for row in facts["evidence"])


# Decay towards zero at a pace that is the LR, an epoch at a time.
EPOCHS = """
import json, math, os, pathlib, sys
lr, epochs, *resumed = sys.argv[1:]
path = pathlib.Path(os.environ["LRATLAS_CHECKPOINT"])
start, weight = json.loads(path.read_text()) if resumed else (0, 1.0)
for epoch in range(start, int(epochs)):
    weight *= 1 - float(lr)
    print(json.dumps({"loss": weight**2, "value": weight**2}))
path.write_text(json.dumps([int(epochs), weight]))
"""


@pytest.mark.parametrize("epochs", [1, 3, 10, 20])
def test_epochs_are_counted_for_a_command(epochs: int, here: Run, place: Path):
    (place / "train.py").write_text(EPOCHS)
    command = f"{sys.executable} -S train.py {{lr}} {{epochs}} [{{checkpoint}}]"
    words = ["find", "--command", command, "-f", "search", "--lrs", "0.001", "1", "1", "--workers", "1"]
    ran = here(*words, "--epochs", epochs)
    assert ran.code == 0, ran
    assert ran.out.splitlines()[0].split()[1:4] == ["lr", "|", "epochs"]
    facts = strict((place / "search" / "advice.json").read_text())
    assert (facts["counted"], facts["steps"]) == ("epochs", epochs)
    assert max(row["steps"] for row in facts["evidence"]) <= epochs
    for row in facts["evidence"]:
        assert row["value"] == pytest.approx((1 - row["lr"]) ** (2 * row["steps"]), abs=1e-12)
    assert "epoch" in ran.out
    assert " step" not in ran.out
    shown = here("show", "search", "--format", "csv")
    assert shown.out.splitlines()[0].split(",")[:3] == ["lr", "seed", "epochs"]
    # Steps are something else.
    assert here(*words, "--steps", epochs).code == 2


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_a_full_training_may_have_few_steps(steps: int, here: Run, place: Path):
    ran = here("find", "--command", program(place), "--steps", steps, "--workers", "1", "-f", "search", "--json")
    assert ran.code == 0, ran
    facts = strict(ran.out)
    assert facts["steps"] == steps
    assert max(row["steps"] for row in facts["evidence"]) <= steps
    assert facts["cost"] <= 1.5 or steps < 10  # each of six LRs is trained for a step at least


@pytest.mark.usefixtures("here")
def test_a_command_that_counts_epochs_is_told_no_steps(refused: Refused):
    said = refused("find", "--command", "sh {lr} {epochs}", "--steps", "64", "-f", "search")
    assert "use --epochs" in said


@pytest.mark.usefixtures("here", "undrawn")
def test_a_command_without_what_the_search_needs_is_refused_in_its_own_terms(place: Path, run: Run, refused: Refused):
    words = ["--steps", "64", "--lrs", "0.01", "1", "1", "-f", "search"]
    command = program(place)
    assert run("find", "--command", command, *words, "--budget", "0.2").code == 0
    for name in ("{checkpoint}", "{final_lr}"):
        said = refused("find", "--command", command.replace(name, "{anneal_from}"), *words, "--budget", "0.2")
        assert f"has no {name}" in said
        assert "another folder" in said


@pytest.mark.usefixtures("undrawn")
def test_what_failed_is_trained_again_where_it_is_asked_for(here: Run, place: Path):
    words = ["--steps", "64", "--lrs", "0.01", "1", "1", "--budget", "0.2", "-f", "search", "--workers", "1"]
    broken = here("find", "--command", program(place, before="sys.exit('no such data')"), *words)
    assert broken.code == 2
    assert "--retry-failed" in broken.err
    mended = here("find", "--command", program(place), *words, "--retry-failed")
    assert mended.code == 0, mended
    assert here("find", "--command", program(place), *words[:-4], "-f", "whole").code == 0
    found, expected = (strict((place / name / "advice.json").read_text()) for name in ("search", "whole"))
    assert found["statement"] == expected["statement"]


@pytest.mark.usefixtures("undrawn")
def test_there_are_as_many_programs_as_gpus_by_default(here: Run, place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    before = "open('seen', 'a').write(os.environ['CUDA_VISIBLE_DEVICES'] + '\\n'); time.sleep(0.1)"
    words = ["--steps", "64", "--lrs", "0.01", "1", "2", "--budget", "0.2", "-f", "search"]
    assert here("find", "--command", program(place, before=before), *words).code == 0
    assert set((place / "seen").read_text().split()) == {"4", "6", "7"}


WORDS: list[tuple[list[str], str]] = [
    ([], "find needs exactly one of SPEC.toml, --script and --command"),
    (["spec.toml", "--command", "sh {lr}"], "find needs exactly one of SPEC.toml, --script and --command"),
    (["absent.toml"], "There is no spec absent.toml"),
    (["spec.toml", "--schedule", "sine"], "'sine' (did you mean cosine or linear?); choose constant, linear or cosine"),
    (["spec.toml", "--warmup", "-1"], "--warmup is '-1', but must be a whole number of at least 0"),
    (["spec.toml", "--seed", "one"], "--seed is 'one', but must be a whole number of at least 0"),
    (["spec.toml", "--chance", "0.1"], "--chance needs --command"),
    (["spec.toml", "--samples", "9"], "--samples needs --command"),
    (["spec.toml", "--steps", "0"], "--steps is '0', but must be a whole number of at least 1"),
    (["spec.toml", "--budget", "0"], "`budget` is 0.0, but must be greater than 0"),
    (["spec.toml", "--budget", "nan"], "`budget` is nan, but must be a finite number"),
    (["spec.toml", "--budget", "much"], "Invalid value for '--budget'"),
    (["spec.toml", "--tolerance", "1"], "`tolerance` is 1.0, but must be less than 1"),
    (["spec.toml", "--lrs", "1", "0.1", "4"], "The grid of LRs has low = 1.0 above high = 0.1"),
    (["spec.toml", "--lrs", "0.1", "1", "0"], "per_decade must be a whole number of at least 1"),
    (["spec.toml", "--lrs", "0.1", "1"], "--lrs"),
    (["spec.toml", "--direction", "minimize"], "--direction needs --command"),
    (["spec.toml", "--metric", "speed"], "metric is 'speed'; choose accuracy or loss"),
    (["spec.toml", "--limit", "1"], "--limit needs --command; with a spec, the task determines it"),
    (["spec.toml", "--timeout", "9"], "--timeout needs --command; a search with a spec runs no program"),
    (["spec.toml", "--stall", "9"], "--stall needs --command; a search with a spec runs no program"),
    (
        ["spec.toml", "--workers", "2"],
        "--workers needs --command; a search with a spec trains several LRs at once in one process",
    ),
    (["--command", "sh {lr}", "--steps", "99", "--limit", "inf"], "`limit` is inf, but must be a finite number"),
    (
        ["spec.toml", "--retry-failed"],
        "--retry-failed needs --command; with a spec, an LR fails only",
    ),
    (["--command", "sh {lr}"], "--command needs the length of a full training: --steps, or --epochs"),
    (["--command", "sh {lr}", "--steps", "9", "--epochs", "9"], "--steps and --epochs both give the length"),
    (["--command", "sh {lr}", "--epochs", "0"], "--epochs is '0', but must be a whole number of at least 1"),
    (["--script", "find_own.py", "--epochs", "9"], "epochs needs a training that takes a number of epochs"),
    (
        ["train.py"],
        "train.py is a script; run lratlas find --script train.py -- ARGUMENTS, with {lr} in the arguments.",
    ),
    (
        ["--command", "sh {lr}", "--steps", "99", "--direction", "up"],
        "--direction is 'up'; choose minimize or maximize",
    ),
    (["--command", "sh {lr}", "--steps", "99", "--workers", "0"], "--workers is '0'"),
    (["--command", "no-such-program {lr}", "--steps", "99"], "'no-such-program' is not found"),
    (["--command", "sh {rate} {lr}", "--steps", "99"], "rate"),
    (["--command", "sh -c 'train {lr}", "--steps", "99"], "quotation"),
    (["--command", "sh train.sh", "--steps", "99"], "{lr}"),
]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("words", "said"), WORDS, ids=[" ".join(words) for words, _ in WORDS])
def test_wrong_words_end_with_one_sentence(words: list[str], said: str, place: Path, refused: Refused):
    before = contents(place)
    assert said in refused("find", *words, "-f", "new")
    assert {name for name in contents(place) if "__pycache__" not in name} == set(before)


@pytest.mark.usefixtures("here")
def test_a_folder_that_is_a_file_is_refused(place: Path, refused: Refused):
    assert "spec.toml cannot be written" in refused("find", "spec.toml", "-f", "spec.toml")
    assert (place / "spec.toml").read_text() == SPEC


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that a killed process left in the middle of training its tenth segment or a later one."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "find_own.py").write_text(MODULE)
    (folder / "spec.toml").write_text(SPEC)
    (folder / "hang").touch()
    words = [sys.executable, "-m", "lratlas", "find", "spec.toml", "-f", "search"]
    with subprocess.Popen(words, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        try:
            deadline = time.monotonic() + 60
            while not (folder / "hanging").exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    (folder / "hang").unlink()
    return folder


@pytest.fixture
def there(interrupted: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command in this process, run where the killed search is."""
    monkeypatch.chdir(interrupted)
    monkeypatch.syspath_prepend(interrupted)
    monkeypatch.delitem(sys.modules, "find_own", raising=False)
    return run


@pytest.mark.usefixtures("undrawn")
def test_a_killed_search_goes_on_to_the_same_advice(interrupted: Path, there: Run):
    journal = interrupted / "search" / "journal.jsonl"
    before = journal.read_bytes()
    assert len(before.splitlines()) >= 9
    resumed = there("find", "spec.toml", "-f", "search", "--json")
    assert (resumed.code, resumed.err) == (0, f"lratlas: Imports find_own from {interrupted / 'find_own.py'}.\n")
    # Reports stay as they were, times included, and no segment is reported twice.
    after = journal.read_bytes()
    assert after.startswith(before)
    assert len(after) > len(before)
    names = [strict(line)["segment"]["name"] for line in after.decode().splitlines()]
    assert len(names) == len(set(names))
    whole = there("find", "spec.toml", "-f", "undisturbed", "--json")
    found, expected = (without_times(strict(ran.out)) for ran in (resumed, whole))
    assert found | {"checkpoint": None} == expected | {"checkpoint": None}
    files = [interrupted / "search", interrupted / "undisturbed"]
    first, second = (load_file(folder / "checkpoint.safetensors") for folder in files)
    assert all(bool((first[name] == second[name]).all()) for name in second)


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--budget 1", "has budget = 1.5, but 1.0 was requested; use the stored values, or another folder"),
        ("--steps 129", "has steps = 128, but 129 was requested"),
    ],
)
def test_another_search_in_the_same_folder_is_refused(words: str, said: str, interrupted: Path, refused: Refused):
    before = contents(interrupted / "search")
    assert said in refused("find", "spec.toml", "-f", "search", *words.split())
    assert contents(interrupted / "search") == before


@pytest.mark.usefixtures("here")
def test_another_task_or_a_damaged_journal_is_refused(place: Path, interrupted: Path, refused: Refused):
    for name in ("search.json", "task.json", "journal.jsonl"):
        (place / "search").mkdir(exist_ok=True)
        (place / "search" / name).write_bytes((interrupted / "search" / name).read_bytes())
    (place / "spec.toml").write_text(SPEC.replace("batch_size = 16", "batch_size = 32"))
    said = "The search in search has a different task: the batch size changed. Use another folder, or undo the change."
    assert said in refused("find", "spec.toml", "-f", "search")
    (place / "spec.toml").write_text(SPEC)
    lines = (place / "search" / "journal.jsonl").read_text().splitlines(keepends=True)
    (place / "search" / "journal.jsonl").write_text("".join([*lines[:2], "{nonsense\n", *lines[2:]]))
    assert "Line 3 of search/journal.jsonl is damaged: " in refused("find", "spec.toml", "-f", "search")
