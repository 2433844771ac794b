"""The training script on the page of commands keeps to what a search asks of a program."""

import re
import sys
from pathlib import Path

import pytest

from lratlas.search.program.output import OutputParser
from lratlas.search.program.template import PLACEHOLDERS, placeholders, values_of
from lratlas.search.segments import Segment, make_segment

PAGE = Path(__file__).parents[3] / "docs" / "command.md"


def test_the_page_has_all_placeholders_and_no_others() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `{")]
    assert sorted(re.findall(r"`\{(\w+)\}`", " ".join(row.split("|")[1] for row in rows))) == sorted(PLACEHOLDERS)


def test_the_script_of_the_page_trains_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (command,) = re.findall(r'--command "(.*?)"', text, flags=re.DOTALL)

    def trained(piece: Segment) -> OutputParser:
        python, _, *words = placeholders(command).fill(values_of(piece, tmp_path / "state"))
        assert python == "python"
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        exec(compile(script, "train.py", "exec"), {"__name__": "__main__"})
        told = OutputParser("value")
        for line in capsys.readouterr().out.splitlines():
            told.take(line.encode())
        assert len(told.losses()) == piece.steps
        assert told.value is not None
        assert told.averaged is not None
        assert told.averaged != told.value
        return told

    first = make_segment(lr=0.03, seed=0, start=0, stop=40, parent=None)
    branch = make_segment(lr=0.03, seed=0, start=40, stop=50, parent=first.name, anneal_from=40)
    start = trained(first).losses()[0]
    # It continues from where it was: the loss does not jump back to that of fresh weights.
    assert max(trained(branch).losses()) < start
