import re
import shlex
import sys
from pathlib import Path

from lratlas.advise.command.process import Limits, Stop
from lratlas.advise.command.slice import train_slice
from lratlas.advise.command.template import placeholders
from lratlas.advise.slices import make_slice

PAGE = Path(__file__).parents[3] / "docs" / "command.md"


def test_the_script_of_the_page_trains_and_goes_on(tmp_path: Path) -> None:
    text = PAGE.read_text()
    (script,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (path := tmp_path / "train.py").write_text(script)
    (found,) = re.findall(r'--command "(.*?)"', text, flags=re.DOTALL)
    command = found.replace("python train.py", f"{sys.executable} {shlex.quote(str(path))}")
    first = make_slice(lr=0.03, seed=0, start=0, stop=40, parent=None)
    branch = make_slice(lr=0.03, seed=0, start=40, stop=50, parent=first.name, anneal_from=40)
    losses = list[float]()
    for piece in (first, branch):
        trained = train_slice(
            piece,
            template=placeholders(command),
            root=tmp_path,
            metric="value",
            is_continued=True,
            limits=Limits(timeout=60, stall=None),
            stop=Stop(),
        )
        assert trained.failure is None
        assert len(trained.losses) == piece.steps
        assert trained.value is not None
        assert trained.averaged is not None
        assert trained.averaged != trained.value
        losses += trained.losses
    # It goes on from where it was: the loss does not jump back to that of fresh weights.
    assert max(losses[40:]) < losses[0]
