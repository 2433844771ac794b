"""Data flow one way, and imports with them: a module imports only from parts of the package before its own."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
# fmt: off
ORDER = [
    "errors", "startup", "text", "lines", "paths", "files", "notices", "bars", "thresholds", "devices", "rng",
    "data", "models", "training", "html", "task", "stacks", "config.values", "study.jobs", "measure", "tables",
    "recommendation",
    "config", "study", "execute", "study.verify", "study.run", "analysis", "monitor", "search",
    "search.program", "report", "results", "api.report", "api.notebook", "atlas", "api", "serve", "doctor",
    "integrations", "cli", "__main__",
]
# fmt: on


def part_of(module: str) -> str:
    """The part that a module belongs to: the longest of those in order that its name begins with."""
    path = module.removeprefix("lratlas.")
    return max((part for part in ORDER if f"{path}.".startswith(f"{part}.")), key=len, default="")


@cache
def imports() -> tuple[tuple[str, str], ...]:
    """Each module with each other of the package that it imports, anywhere in its text; not those of the package."""
    return tuple(_imports())


def _imports() -> Iterator[tuple[str, str]]:
    for path in (SOURCE / "lratlas").rglob("*.py"):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if module != "lratlas" else ():
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lratlas"):
                yield from ((module, f"{node.module}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from ((module, alias.name) for alias in node.names if alias.name.startswith("lratlas"))


def test_every_module_belongs_to_a_part():
    assert {module for pair in imports() for module in pair if not part_of(module)} == set()


def test_imports_go_one_way():
    place = {part: number for number, part in enumerate(ORDER)}
    found = {(module, part_of(other)) for module, other in imports()}
    assert {(module, part) for module, part in found if place[part] > place[part_of(module)]} == set()
