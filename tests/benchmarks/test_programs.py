"""The page of public programs shows what was measured last."""

import json

from benchmarks.program_table import line
from benchmarks.programs import OUT


def test_the_page_has_the_newest_line_of_each_program():
    page = OUT.with_name("README.md").read_text(encoding="utf-8").splitlines()
    newest = {each["program"]: each for each in map(json.loads, OUT.read_text(encoding="utf-8").splitlines())}
    assert [line(found) for found in newest.values() if line(found) not in page] == []


def test_the_metric_is_that_of_the_advised_finish():
    found = {"program": "vae", "steps": 10, "seconds": 30.0, "lr": 0.1, "low": 0.05, "high": 0.2, "finish": "average"}
    found |= {f"{factor}: {what}": value for factor in ("half", "advised", "three times") for what, value in {
        "value": 1.0, "averaged": 2.0, "seconds": 10.0}.items()}  # fmt: skip
    assert line(found).endswith("| 2.0 | 0.1 (0.05 to 0.2) | loss, average | 2 | 2 | 2 |")
    assert line(found | {"finish": "schedule"}).endswith("| loss, schedule | 1 | 1 | 1 |")
