"""`lratlas watch`: a script run as it is, with the regime of its training at the end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import lratlas, sys, torch
from torch import nn
torch.manual_seed(0)
x = torch.randn(256, 8)
y = (x[:, 0] > 0).long()
model = nn.Linear(8, 2)
for part in range(2):  # another optimizer on the way
    optimizer = torch.optim.SGD(model.parameters(), lr=float(sys.argv[1]))
    watch = lratlas.watch(optimizer) if "--own" in sys.argv else lambda loss: None
    for step in range(600):
        batch = torch.randint(256, (16,))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        watch(loss)
if "--own" in sys.argv:
    watch.close()
    print(watch.report())
print(__name__, sys.argv[1:], f"{loss.item()!r}")
sys.exit(3)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    return path


def ran(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.usefixtures("script")
def test_a_script_is_the_one_that_runs_by_itself_and_watched_as_by_a_line_in_its_loop(tmp_path: Path) -> None:
    alone, own = (ran("train.py", "1.0", word, folder=tmp_path) for word in ("-v", "--own"))
    words = ["--log", "log.jsonl", "train.py"]
    watched = ran("-m", "lratlas", "watch", *words, "--", "1.0", "-v", folder=tmp_path)
    printed, report = watched.stdout.split("\n", 1)
    assert printed + "\n" == alone.stdout
    assert watched.returncode == alone.returncode == 3
    assert report == own.stdout[: -len(alone.stdout) - len("--own") + len("-v")]
    looks = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert looks[-1]["step"] <= 600  # the second optimizer is another training


def test_what_trains_nothing_is_said_and_wrong_words_are_named(tmp_path: Path) -> None:
    (tmp_path / "idle.py").write_text("print('idle')")
    idle = ran("-m", "lratlas", "watch", "idle.py", folder=tmp_path)
    assert (idle.stdout, idle.returncode) == ("idle\nNo step of a PyTorch optimizer was seen.\n", 0)
    for words, said in (
        (["none.py"], "The script none.py cannot be read"),
        (["idle.py", "--schedule", "step"], "--schedule is 'step'; choose constant, linear or cosine."),
    ):
        wrong = ran("-m", "lratlas", "watch", *words, folder=tmp_path)
        assert said in wrong.stderr
        assert wrong.returncode == 2
