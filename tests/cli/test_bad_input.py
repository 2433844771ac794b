import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.helpers import SPEC, contents
from lratlas.cli.app import main

Refused = Callable[..., str]

WORDS: list[tuple[str, str]] = [
    ("reproduce tick -f new", "no preset 'tick' (did you mean ticks?); allowed are cifar10-convnet, "),
    ("reproduce [red]x[/red] -f new", "no preset '[red]x[/red]'; allowed are cifar10-convnet, "),
    ("reproduce digits -f new --repeats 0", "--repeats is '0', but must be a whole number of at least 1"),
    ("reproduce digits -f new --repeats -1", "--repeats is '-1', but must be a whole number of at least 1"),
    ("reproduce digits -f new --repeats two", "--repeats is 'two', but must be a whole number of at least 1"),
    ("reproduce digits -f new --repeats 99999", "repeats must be from 1 to 10,000"),
    ("explore spec.toml -f new --workers -1", "--workers is '-1', but must be a whole number of at least 0"),
    (
        "explore spec.toml -f new --workers 100000",
        "--workers is 100000, but at most 1,024 are allowed; this machine has",
    ),
    (
        "find --command {lr} --steps 9 --workers 99999",
        "--workers is 99999, but at most 1,024 are allowed; this machine has",
    ),
    ("resume study --workers 1.5", "--workers is '1.5', but must be a whole number of at least 0"),
    ("demo --workers ²", "--workers is '²', but must be a whole number of at least 0"),
    ("explor spec.toml", "No such command 'explor' (did you mean 'explore'"),
    ("frobnicate", "No such command 'frobnicate'; `lratlas --help` shows what is allowed"),
    ("find --script train.py --lr=1", "No such option: --lr; put the script's arguments after --;"),
    ("explore spec.toml -f new --fast", "No such option: --fast; `lratlas explore --help`"),
    ("show", "Missing argument 'FOLDER'; `lratlas show --help`"),
    ("show study runs traces", "unexpected extra argument"),
    ("show absent", "There is no folder"),
    ("status absent", "There is no folder"),
    ("report absent", "There is no folder"),
    ("resume absent", "There is no folder"),
    ("resume empty", "no study in the empty folder"),
    ("status spec.toml", "spec.toml is a file, but a study is a folder"),
    ("resume full", "is not a study: it has no spec.toml"),
    ("explore spec.toml -f full", "is not empty and not a study; use a new or empty folder"),
    ("explore spec.toml -f spec.toml", "spec.toml is a file, but a study needs a folder"),
    ("explore spec.toml -f spec.toml/deeper/still", "is a file, not a folder"),
    ("explore spec.toml -f /proc/lratlas/study", "spec.toml cannot be written to /proc/lratlas/study"),
    (f"explore spec.toml -f {'x' * 300}", "File name too long"),
    ("explore spec.toml -f nosuch://place", "The location nosuch://place cannot be used"),
    ("explore absent.toml -f new", "There is no spec absent.toml; it must be the path of a TOML file"),
    ("explore full -f new", "The spec full is a folder, but must be a TOML file"),
]

SPECS: list[tuple[str, str, str]] = [
    (SPEC, "", "is empty; it needs at least [task] and [pretrain]"),
    (SPEC, "lrs = [[[", "is not valid TOML"),
    (SPEC, "a\0b", "binary"),
    ("[pretrain]", "[pretrian]", "spec.toml: There is no section `pretrian` (did you mean `pretrain`?); allowed are"),
    (
        "steps = 100",
        "step = 100",
        "`pretrain.step` is not a field (did you mean `steps`?); allowed in [pretrain] are lrs",
    ),
    ("steps = 100", "steps = 0", "`pretrain.steps` is 0, but must be greater than or equal to 1"),
    ("steps = 100", 'steps = "many"', "`pretrain.steps` is 'many', but must be a valid integer"),
    ("steps = 100", "epochs = 999999999999", "`pretrain.epochs` is 999999999999, but must be less than or equal to"),
    ("steps = 100", "steps = 100\nrepeats = 0", "`pretrain.repeats` is 0, but must be greater than or equal to 1"),
    ("steps = 100", "steps = 100\nrepeats = 100000", "`pretrain.repeats` is 100000, but must be less than or equal"),
    ("[1e-3, 1e-1]", "[1e-3, -1e-1]", "`pretrain.lrs` holds -0.1, but every LR must be a positive finite number"),
    ("[1e-3, 1e-1]", "[1e-3, 1e-3]", "`pretrain.lrs` holds 0.001 twice, but LRs must be different"),
    ("[1e-3, 1e-1]", "[]", "`pretrain.lrs` is empty, but must hold at least one LR"),
    (
        "counts = [2]",
        "counts = [101]",
        "SWA-101 needs 101 checkpoints, 4 steps apart, but pre-training has only 100 steps; at most 25",
    ),
    ("counts = [2]", "counts = [20000]\nextend = true", "at most 10,000 checkpoints can be averaged"),
    ("sphere_sgd", "sgdd", "`task.rule.name` is 'sgdd', but must be sgd, adam, adamw, sphere_sgd, sphere_rsgd or"),
    ("compile = false", 'device = "cuda:99"', "`training.device` is 'cuda:99', which this machine does not have"),
    ("compile = false", 'device = "abacus"', "`training.device` is 'abacus', but must be auto, cpu"),
    ("batch_size = 16", "batch_size = 65", 'batch_size is 65; it must be "full" or a whole number from 1 to 64'),
    (
        'model = "cli_own:model"\ndata = "cli_own:data"',
        'preset = "tick"',
        "no task preset 'tick' (did you mean ticks?)",
    ),
    ("cli_own:model", "cli_absent:model", "cli_absent:model cannot be imported: No module named 'cli_absent'"),
    ("cli_own:model", "cli_own:absent", "module cli_own has no function 'absent'"),
    ("cli_own:model", "cli_own:model_that_fails", "Creating the model failed: KeyError: 'width'"),
    ("cli_own:model", "cli_own:model_for_five_inputs", "The model does not accept a batch of the data, (16, 6)"),
    ("cli_own:model", "cli_own:model_with_biases", "do not change when the trained weights are scaled"),
    ("cli_own:model", "cli_own:data", "must return a torch.nn.Module"),
    ("cli_own:data", "cli_own:data_with_nan", "train: the inputs contain NaN or infinite values; all must be finite"),
    ("cli_own:data", "cli_own:data_with_a_high_label", "labels go up to 7"),
    ("cli_own:data", "cli_own:data_with_a_negative_label", "label -1 is negative; classes count from 0"),
    ("cli_own:data", "cli_own:data_that_fails", "ValueError: no such disk and a second line"),
    ("cli_own:data", "cli_own:data_that_is_not_a_pair", "must return a pair (train, test)"),
]


@pytest.mark.parametrize(("words", "said"), WORDS)
def test_wrong_words_end_with_one_sentence(
    words: str, said: str, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.toml").write_text(SPEC)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert said in refused(*words.split())
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("old", "new", "said"), SPECS)
def test_a_faulty_spec_ends_with_one_sentence(old: str, new: str, said: str, tmp_path: Path, refused: Refused):
    assert old in SPEC
    path = tmp_path / "spec.toml"
    path.write_text(SPEC.replace(old, new))
    assert said in refused("explore", path, "-f", tmp_path / "study", "--workers", "1")
    assert not (tmp_path / "study" / "plan.json").exists()


def test_a_binary_file_is_no_spec(tmp_path: Path, refused: Refused):
    (tmp_path / "spec.toml").write_bytes(bytes(range(256)))
    assert "is not UTF-8 text" in refused("explore", tmp_path / "spec.toml", "-f", tmp_path / "study")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("reproduce digits -f {}", "holds another study: `name` is 'tiny' in the study, but 'digits'"),
        ("explore other.toml -f {}", "holds another study: `pretrain.steps` is 100 in the study, but 101"),
        ("explore moved.toml -f {}", "`pretrain.lrs` holds 0.1 in the study, but not in the new spec"),
        ("show {} nonsense", "no table 'nonsense'; choose one of runs, traces, regimes, boundaries"),
        ("show {} runs --format xml", "--format is 'xml'; choose table, csv or json"),
        ("resume {} --workers -1", "--workers is '-1'"),
        ("resume {} --workers 0 --cluster auto", "workers is 0, which means this process"),
        ("explore spec.toml -f {}/tables", "is not empty and not a study"),
    ],
)
def test_a_study_survives_what_is_refused(words: str, said: str, study: Path, home: Path, refused: Refused):
    (home / "other.toml").write_text(SPEC.replace("steps = 100", "steps = 101"))
    (home / "moved.toml").write_text(SPEC.replace("[1e-3, 1e-1]", "[1e-3, 1e-2]"))
    before = contents(study)
    assert said in refused(*(word.format(study) for word in words.split()))
    assert contents(study) == before


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "The disk is full: tables/regimes/analysis.parquet could not be written"),
        (errno.EROFS, "tables/regimes/analysis.parquet cannot be written to"),
    ],
)
def test_a_study_survives_a_disk_that_takes_nothing(
    code: int, said: str, study: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
):
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    before = contents(study)
    monkeypatch.setattr(os, "fsync", fail)
    text = refused("report", study)
    assert said in text
    assert "All results so far are saved" in text
    assert contents(study) == before


def test_a_disk_too_full_for_the_report_leaves_the_results_to_be_read(
    study: Path, tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    full = shutil.copytree(study, tmp_path / "full")
    (full / "report.html").unlink()
    monkeypatch.setattr(os, "fsync", fail)
    ran = run("resume", full)
    assert ran.code == 0
    assert "The report could not be written: The disk is full" in ran.err
    assert ran.out == run("resume", study).out.replace(str(study), str(full)).replace(
        f"Report: {full}/report.html\n", ""
    )


@pytest.mark.parametrize(
    ("command", "function", "said"),
    [
        ("resume", "lratlas.api.explore.resume", "; no result is lost: run the same command again to resume"),
        ("show", "lratlas.atlas.load", ""),
    ],
)
def test_ctrl_c_promises_to_continue_only_what_is_stored(
    command: str, function: str, said: str, study: Path, run: Callable[..., object], monkeypatch: pytest.MonkeyPatch
):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(function, interrupt)
    assert vars(run(command, study)) == {"code": 130, "out": "", "err": f"lratlas: interrupted{said}.\n"}


def test_a_second_ctrl_c_while_python_ends_has_the_exit_code_of_the_first():
    code = """
import atexit, os, signal
import lratlas.cli.app as cli

atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
cli.app = lambda **_: cli.INTERRUPTED
cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert (ended.returncode, ended.stderr) == (130, "lratlas: interrupted.\n")


def test_main_is_what_is_installed_as_lratlas():
    from importlib.metadata import entry_points

    (command,) = entry_points(group="console_scripts", name="lratlas")
    assert command.load() is main
