import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """A function of a script and options: the data that it prints, run in short as the main module of this process."""

    def ran(name: str, *options: str) -> Any:
        monkeypatch.syspath_prepend(SCRIPTS)
        monkeypatch.setattr(sys, "argv", [name, "--quick", "--json", *options])
        runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        return json.loads(capsys.readouterr().out)

    return ran
