"""The check of a GPU, in short on the CPU, where both sides of each comparison are the same device."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from benchmarks.conftest import SCRIPTS


def test_the_dry_run_finds_nothing_wrong_and_leaves_out_only_what_needs_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--dry-run", "--out", str(tmp_path), "--only", "right,bits,memory"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options])
    runpy.run_path(str(SCRIPTS / "gpu.py"), run_name="__main__")
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert len(found["checks"]) == 10
    assert [check for check in found["checks"] if not check["ok"]] == []
    assert found["left out"] == ["memory: it needs a CUDA device"]
    assert {row["tf32"] for row in found["rows"]} == {True, False}
