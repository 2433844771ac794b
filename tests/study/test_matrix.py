"""No study ends without its report: kinds of code, data, targets and outcomes, every pair of them in some study."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from cheaper import lines_of, unfigured
from study import matrix_cases

FACTORS: dict[str, tuple[str, ...]] = {
    "home": ("script", "notebook", "module"),
    "program": ("eager", "compiled"),
    "targets": tuple(matrix_cases.OUTPUTS),
    "inputs": ("images", "vectors", "sequences", "dictionaries"),
    "lrs": tuple(matrix_cases.LRS),
}
Case = dict[str, str]


def pairwise() -> list[Case]:
    """Combinations in which every two values of different factors occur together, chosen greedily."""
    every = [dict(zip(FACTORS, values, strict=True)) for values in itertools.product(*FACTORS.values())]
    open_pairs, chosen = set[Any]().union(*map(pairs_of, every)), list[Case]()
    while open_pairs:
        best = max(every, key=lambda case: len(pairs_of(case) & open_pairs))
        chosen.append(best)
        open_pairs -= pairs_of(best)
    return chosen


def pairs_of(case: Case) -> set[Any]:
    return set(itertools.combinations(sorted(case.items()), 2))


CASES = pairwise()
# A compiled program of a script, and eager ones such that every value of every factor occurs.
QUICK = [
    {"home": "script", "program": "compiled", "targets": "own loss", "inputs": "vectors", "lrs": "one LR"},
    {"home": "notebook", "program": "eager", "targets": "classes", "inputs": "sequences", "lrs": "all at chance"},
    {
        "home": "module",
        "program": "eager",
        "targets": "several labels",
        "inputs": "dictionaries",
        "lrs": "all too small",
    },
    {"home": "module", "program": "eager", "targets": "real values", "inputs": "images", "lrs": "all diverged"},
]


def results(home: str, cases: list[Case], folder: Path) -> list[dict[str, Any]]:
    """The combinations run where their code lies."""
    source = lines_of(unfigured) + Path(matrix_cases.__file__).read_text(encoding="utf-8")
    out = folder / "results.json"
    if home == "module":
        with unfigured():
            return matrix_cases.run_all(cases, str(folder))
    if home == "script":
        script = folder / "training.py"
        script.write_text(source, encoding="utf-8")
        ran = subprocess.run(
            [sys.executable, script.name, json.dumps(cases), str(folder), str(out)],
            cwd=folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
    else:
        notebook = nbformat.v4.new_notebook(
            cells=[
                nbformat.v4.new_code_cell(source),
                nbformat.v4.new_code_cell(
                    f"found = run_all({cases!r}, {str(folder)!r})\n"
                    f"_ = Path({str(out)!r}).write_text(json.dumps(found), encoding='utf-8')"
                ),
            ]
        )
        NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(folder))
    return json.loads(out.read_text(encoding="utf-8"))


def check(case: Case, found: dict[str, Any]) -> None:
    """Every study has its page and its tables, and says what it is about."""
    assert found["report"] > 100_000
    assert set(found["codes"].values()) == {0}
    assert found["summary"]
    # Nothing may fall back silently, and nothing may fail on its way.
    assert not [said for said in found["notices"] if "Compilation failed" in said or "failed and" in said]
    known = {value is not None for value in found["accuracies"]}
    scored = case["targets"] in ("classes", "several labels")
    if not scored:
        assert known == {False}
    elif case["lrs"] != "all diverged":
        assert known == {True}
    regimes = {regime for regime, _ in map(tuple, found["regimes"])}
    if case["lrs"] == "all at chance" and scored:
        assert "1" not in regimes
    if case["lrs"] == "all diverged" and case["targets"] != "own loss":  # that one is bounded
        assert regimes == {"3"}
        assert found["advice"].startswith("No LR is recommended.")
    if case["lrs"] == "all too small":
        assert {tuple(row) for row in found["regimes"]} == {("undecided", "has not moved")}


def by_home(cases: list[Case]) -> Iterator[tuple[str, list[Case]]]:
    for home in FACTORS["home"]:
        yield home, [case for case in cases if case["home"] == home]


def test_every_pair_of_values_occurs_in_the_matrix() -> None:
    values = [len(each) for each in FACTORS.values()]
    pairs = sum(one * other for one, other in itertools.combinations(values, 2))
    assert len(set[Any]().union(*map(pairs_of, CASES))) == pairs
    assert len(CASES) <= 24
    assert {value for case in QUICK for value in case.values()} == set(itertools.chain(*FACTORS.values()))


@pytest.mark.parametrize("home", FACTORS["home"])
def test_a_study_of_every_kind_comes_to_its_report(home: str, tmp_path: Path) -> None:
    cases = dict(by_home(QUICK))[home]
    for case, found in zip(cases, results(home, cases, tmp_path), strict=True):
        check(case, found)


@pytest.mark.long
@pytest.mark.parametrize("home", FACTORS["home"])
def test_the_whole_matrix(home: str, tmp_path: Path) -> None:
    cases = dict(by_home(CASES))[home]
    for case, found in zip(cases, results(home, cases, tmp_path), strict=True):
        check(case, found)
