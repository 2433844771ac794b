"""The names of the built-in studies; importable without heavy modules, for help texts."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

FOLDER = Path(__file__).with_name("presets")
"""One spec per study, in TOML."""


def _description(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        return lines.readline().removeprefix("# ").rstrip()


PRESETS: Mapping[str, str] = MappingProxyType({path.stem: _description(path) for path in sorted(FOLDER.glob("*.toml"))})
"""The description of each study: the first line of its spec, a comment."""
