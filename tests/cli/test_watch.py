"""`lratlas watch`: a script run as it is, with the regime of its training at the end."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.helpers import Ran

SCRIPT = """
import io, lratlas, sys, torch
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
    torch.save(model.state_dict(), kept := io.BytesIO())
    kept.seek(0)
    model.load_state_dict(torch.load(kept))
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


@pytest.fixture
def by_itself(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, object]]:
    """A function of the script's arguments that runs it here: what it prints, and its exit code."""

    def printed(*words: str) -> tuple[str, object]:
        monkeypatch.setattr(sys, "argv", [str(script), *words])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(script), run_name="__main__")
        return capsys.readouterr().out, end.value.code

    return printed


def test_a_script_is_the_one_that_runs_by_itself_and_watched_as_by_a_line_in_its_loop(
    by_itself: Callable[..., tuple[str, object]], run: Callable[..., Ran], script: Path, tmp_path: Path
) -> None:
    (alone, code), (own, _) = (by_itself("1.0", word) for word in ("-v", "--own"))
    watched = run("watch", "--log", tmp_path / "log.jsonl", script, "--", "1.0", "-v")
    printed, report = watched.out.split("\n", 1)
    assert printed + "\n" == alone
    assert watched.code == code == 3
    first, second = report.splitlines()
    assert first.startswith("optimizer 1: step 600: ")
    assert second.removeprefix("optimizer 2: ") + "\n" == own[: -len(alone) - len("--own") + len("-v")]
    for name in ("log.jsonl", "log-2.jsonl"):
        looks = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        assert 256 <= looks[-1]["step"] <= 600  # the second optimizer is another training


def test_what_trains_nothing_is_said_and_wrong_words_are_named(
    run: Callable[..., Ran], refused: Callable[..., str], tmp_path: Path
) -> None:
    idle = tmp_path / "idle.py"
    idle.write_text("print('idle')")
    ran = run("watch", idle)
    assert (ran.out, ran.code) == ("idle\nNo PyTorch optimizer took a step.\n", 0)
    assert refused("watch", "none.py").startswith("The script none.py cannot be read")
    assert refused("watch", idle, "--schedule", "step") == "--schedule is 'step'; choose constant, linear or cosine."
