"""The examples, run in their folder: by the commands that they name, or as the main module of this process."""

import io
import json
import math
import re
import runpy
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

import lratlas
from cheaper import unfigured, without_a_process, workerless
from docs.shell import run_shell
from lratlas.atlas import load
from lratlas.config.spec import read_spec, spec_from
from lratlas.config.tasks import tasks_from
from lratlas.study.folder import JOURNAL
from lratlas.task import Task
from lratlas.training.fingerprint import fingerprint

EXAMPLES = Path(__file__).parents[1] / "examples"
FEW = [0.01, 0.03]
OWN_MODEL = {
    "lratlas.lr_grid(1e-3, 1.0, per_decade=2)": str(FEW),
    '"epochs": 5': '"epochs": 1',
    '"epochs": 40': '"epochs": 5',
    'training={"compile": False}': 'training={"compile": False}, measure={"interpolation": 3}, trace={"points": 5}',
}

TRAINED = 1_200  # digits, of 1,797
SHORT = 320  # steps of a full training
SEARCHES: dict[str, tuple[str, dict[str, str]]] = {  # the folder of each search, and what makes it short
    "ask_and_tell_numpy.py": ("numpy-search", {}),
    "plain_pytorch.py": ("plain-pytorch-search", {"STEPS = 1_000": f"STEPS = {SHORT}"}),
    "optuna_study.py": ("optuna-search", {"STEPS = 800": f"STEPS = {SHORT}"}),
    "lightning_module.py": (
        "lightning-search",
        {"STEPS = 800": f"STEPS = {SHORT}", "folder=FOLDER,": "folder=FOLDER, lrs=[1e-5, 1e-3, 0.1, 10.0],"},
    ),
    "hugging_face.py": (
        "hugging-face-search",
        {"STEPS = 800": f"STEPS = {SHORT}", "folder=FOLDER)": "folder=FOLDER, lrs=[1e-4, 1e-2, 1.0])"},
    ),
    "function.py": ("function-search", {"folder=": "lrs=[1e-5, 1e-3, 0.1, 10.0], folder="}),
    "script.sh": ("script-search", {"epochs=20": "epochs=10", "--folder": "--lrs 1e-3 10 1 --folder"}),
    "shell_command.sh": (
        "shell-command-search",
        {"steps=1000": f"steps={SHORT}", "--lrs 1e-4 1 3": "--lrs 1e-2 1 1 --budget 0.8"},
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the examples."""
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__")))


def ran(folder: Path, *words: str) -> str:
    """What a Python command printed in this folder."""
    command = [sys.executable, *words]
    process = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False)
    assert process.returncode == 0, process.stderr[-1000:]
    return process.stdout


@contextmanager
def as_a_script(folder: Path) -> Generator[io.StringIO]:
    """This process as a script in this folder finds it, with what is printed; what is imported is imported already."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), redirect_stdout(io.StringIO()) as printed:
        warnings.simplefilter("ignore")
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        yield printed
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)


def ran_here(folder: Path, name: str) -> str:
    """What a script printed, run as the main module of this process."""
    with as_a_script(folder) as printed:
        runpy.run_path(str(folder / name), run_name="__main__")
    return printed.getvalue()


def shorten_script(path: Path, replaced: Mapping[str, str]) -> None:
    """Cut a script down to seconds, by what is to be replaced in it."""
    script = path.read_text(encoding="utf-8")
    for old, new in replaced.items():
        assert script.count(old) == 1
        script = script.replace(old, new)
    path.write_text(script, encoding="utf-8")


def test_an_own_model_trains_well_above_chance(folder: Path) -> None:
    shorten_script(folder / "own_model.py", OWN_MODEL)
    with workerless(), unfigured():
        printed = ran_here(folder, "own_model.py")
    study = folder / "own-study-from-python"
    assert f"{study.name}/report.html" in printed
    assert (study / "report.html").is_file()
    runs = load(study).table("runs")
    # Two PLRs, each fine-tuned with two FLRs and averaged over two counts.
    assert runs["stage"].value_counts().sort("stage").rows() == [("average", 4), ("finetune", 4), ("pretrain", 2)]
    assert all(accuracy > 0.5 for accuracy in runs.filter(stage="finetune")["test_accuracy"])
    bands = load(study).table("bands")
    assert {*bands["low"], *bands["high"]} >= {0, 8}  # images of 8 x 8 have the bands 0 to 8


def test_the_spec_and_the_script_ask_for_the_same_study(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    spec = read_spec(folder / "own_model.toml")
    asked: dict[str, Any] = {}

    def explore(task: Task, *, folder: str, **sections: Any) -> SimpleNamespace:
        asked.update(task=task, sections=sections)
        return SimpleNamespace(folder=folder, summary=[])

    monkeypatch.setattr(lratlas, "explore", explore)
    own_task = tasks_from(spec.task).of(0)
    sys.modules.pop("own_model").main()
    assert fingerprint(asked["task"].prepared) == fingerprint(own_task)
    same = {"name": spec.name, "task": spec.task.model_dump(exclude_none=True)}
    assert spec_from(same | asked["sections"]) == spec


def searched(
    folder: Path, name: str, run: Callable[[Path, str], str], *, again: bool = False
) -> tuple[float, list[float]]:
    """Run an example of a search: the advised LR, and the numbers of the last line, what the training reached.

    Run ``again``, it says the same and adds nothing to the search.
    """
    search, replaced = SEARCHES[name]
    shorten_script(folder / name, replaced)
    printed = run(folder, name)
    journal = (folder / search / JOURNAL).read_bytes()
    assert not again or run(folder, name) == printed
    assert (folder / search / JOURNAL).read_bytes() == journal
    # All that is left lies in its own folder.
    left = {path.name for path in folder.iterdir()} - {path.name for path in EXAMPLES.iterdir()} - {"__pycache__"}
    assert left == {search}
    (lr,) = re.findall(r"Use an initial LR of (\S+)", printed)
    return float(lr), [float(number) for number in re.findall(r"\d+\.\d+", printed.splitlines()[-1])]


def digits() -> tuple[Any, Any]:
    """Images and digits in their own order."""
    x, y = (np.asarray(part) for part in load_digits(return_X_y=True))
    order = np.random.default_rng(1).permutation(len(y))
    return x[order] / 16, y[order]


OWN_SGD: dict[str, Any] = {  # scikit-learn's, as in the examples
    "solver": "sgd",
    "momentum": 0.9,
    "nesterovs_momentum": False,
    "alpha": 0,
    "batch_size": 32,
    "max_iter": math.ceil(SHORT * 32 / TRAINED),
    "random_state": 0,
}


@cache
def classifies(lr: float) -> bool:
    """Whether scikit-learn teaches a net like that of the examples nine digits of ten, at this LR."""
    x, y = digits()
    net = MLPClassifier(hidden_layer_sizes=(64,), learning_rate_init=lr, **OWN_SGD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(x[:TRAINED], y[:TRAINED])
    return net.score(x[TRAINED:], y[TRAINED:]) > 0.9


def check_search_on_digits(
    folder: Path, name: str, run: Callable[[Path, str], str] = ran_here, *, again: bool = False
) -> None:
    """The advised LR trains elsewhere, too, which others do not; the example's own training is far above chance."""
    lr, reached = searched(folder, name, run, again=again)
    assert classifies(lr)
    assert not classifies(1e-3)
    assert not classifies(1.0)
    assert reached[-1] > 0.93  # of the averaged weights


def states(folder: Path, ending: str) -> list[str]:
    return [path.name for path in folder.rglob(f"*{ending}")]


def test_a_plain_loop(folder: Path) -> None:
    check_search_on_digits(folder, "plain_pytorch.py", again=True)
    assert len(states(folder, ".pt")) == 1  # from which the full training can continue


def test_a_function_that_trains(folder: Path) -> None:
    check_search_on_digits(folder, "function.py")


def test_a_training_script(folder: Path) -> None:
    lr, _ = searched(folder, "script.sh", ran_by_sh)
    assert classifies(lr)


def test_a_training_in_numpy(folder: Path) -> None:
    def without_torch(folder: Path, name: str) -> str:
        code = f"import sys, {Path(name).stem} as example; example.main(); assert 'torch' not in sys.modules"
        return ran(folder, "-c", code)

    check_search_on_digits(folder, "ask_and_tell_numpy.py", without_torch, again=True)
    # That of the full training, and one from which it could have continued.
    assert len(states(folder, ".npz")) == 2


def test_a_lightning_module(folder: Path) -> None:
    check_search_on_digits(folder, "lightning_module.py")


def test_a_study_of_optuna_keeps_the_trials(folder: Path) -> None:
    check_search_on_digits(folder, "optuna_study.py")
    search = folder / "optuna-search"
    study = optuna.load_study(study_name="digits", storage=f"sqlite:///{search}/study.db")
    told = [json.loads(line) for line in (search / JOURNAL).read_text(encoding="utf-8").splitlines()]
    assert [trial.params["lr"] for trial in study.trials] == [each["segment"]["lr"] for each in told]


def test_a_hugging_face_trainer(folder: Path) -> None:
    lr, reached = searched(folder, "hugging_face.py", ran_here)
    # AdamW moves a weight by about an LR in a step. Weights are of the size of 0.1 in the beginning: all steps together
    # have to be more than a tenth of that, and one of them less than the whole.
    assert 0.01 / SHORT < lr < 0.1
    assert reached[-1] > 0.4  # chance is 0.1
    assert states(folder, ".safetensors") == []


def compresses(lr: float) -> float:
    """The share of the variance that scikit-learn's autoencoder, like that of the example, leaves over at this LR."""
    x, _ = digits()
    x -= x[:TRAINED].mean(axis=0)
    # Its loss is half of the example's.
    net = MLPRegressor(hidden_layer_sizes=(16,), activation="tanh", learning_rate_init=2 * lr, **OWN_SGD)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(x[:TRAINED], x[:TRAINED])
    return float(np.sum((net.predict(x[TRAINED:]) - x[TRAINED:]) ** 2) / np.sum(x[TRAINED:] ** 2))


def ran_by_sh(folder: Path, name: str) -> str:
    with without_a_process(), unfigured():
        return run_shell(f"sh {name}", folder, folder.parent)


def test_a_shell_command(folder: Path) -> None:
    lr, reached = searched(folder, "shell_command.sh", ran_by_sh)
    assert compresses(lr) < 0.3
    assert compresses(3e-4) > 0.5
    with pytest.raises(ValueError, match="non-finite"):
        compresses(1.0)
    x, _ = digits()
    assert reached[-1] < 0.3 * x.var(axis=0).sum()
    search = folder / "shell-command-search"
    assert json.loads((search / "advice.json").read_text(encoding="utf-8"))["lr"] == pytest.approx(lr, rel=0.05)
    assert (search / "advice.html").is_file()
    assert sorted(states(folder, ".npz")) == ["checkpoint.npz", "whole.npz"]


TWO_SLICES = """
import json
import {name} as example
from lratlas.search.segments import make_segment

example.FOLDER.mkdir()
asked = {{"lr": {lr}, "seed": 3, "parent": None}}
first = make_segment(start=0, stop=50, **asked)
second = make_segment(start=50, stop=100, anneal_from=50, **asked | {{"parent": first.name}})
told = [example.train(each) for each in (first, second)]
told.append(example.train(make_segment(start=0, stop=100, anneal_from=50, **asked)))
told.append(example.train(make_segment(start=0, stop=50, **asked | {{"lr": {huge}}})))
print(json.dumps(told))
"""


@pytest.mark.parametrize(
    ("name", "lr", "huge"),
    [("ask_and_tell_numpy", 0.1, 1e300), ("plain_pytorch", 0.1, 1e38)],
)
def test_two_segments_are_one_training_and_divergence_is_told(folder: Path, name: str, lr: float, huge: float) -> None:
    with as_a_script(folder) as printed:
        exec(TWO_SLICES.format(name=name, lr=lr, huge=huge), {})
    first, second, whole, diverged = json.loads(printed.getvalue().splitlines()[-1])
    assert first["losses"] + second["losses"] == whole["losses"]
    assert len(whole["losses"]) == 100
    assert {**second, "losses": []} == {**whole, "losses": []}
    assert second["losses"][-1] < 0.8 * whole["losses"][0]
    assert not all(math.isfinite(loss) for loss in diverged["losses"])


def test_two_runs_of_the_command_are_one_training(folder: Path) -> None:
    def trained(start: int, stop: int, *, state: str) -> list[dict[str, float]]:
        steps = ["--start", str(start), "--stop", str(stop), "--average-from", "90"]
        same = ["--lr", "0.1", "--final-lr", "0.1", "--seed", "0", "--state", state]
        return [json.loads(line) for line in ran(folder, "command_training.py", *steps, *same).splitlines()]

    whole = trained(0, 100, state="whole.npz")
    parts = trained(0, 50, state="part.npz")[:-1] + trained(50, 100, state="part.npz")
    assert parts == whole
    assert [line.get("step") for line in whole] == [*range(1, 101), None]
    assert 0 < whole[-1]["averaged"] < whole[-1]["value"] < whole[0]["loss"]
