"""What every page of this package is made of: templates, one style, scripts, and a policy that shuts out all else."""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from lratlas.report.downloads import packed
from lratlas.report.look import Drawing


@cache
def environment() -> Environment:
    """The templates; text put into them is shown as it is, never read as HTML."""
    return Environment(
        loader=PackageLoader("lratlas.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def part(name: str) -> str:
    """The style or a script of a page, a file beside the templates."""
    return files("lratlas.report").joinpath("templates", name).read_text(encoding="utf-8")


def policy(scripts: Sequence[str], *, live: bool = False) -> str:
    """What the browser may load and run: nothing but the given scripts, which Vega compiles formulas in.

    Args:
        scripts: The text of each script of the page.
        live: The page may ask the server that it came from.
    """
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    rules = [
        "default-src 'none'",
        f"script-src 'unsafe-eval' {hashes}",
        "style-src 'unsafe-inline'",
        "img-src data: blob:",
        *(["connect-src 'self'"] if live else []),
    ]
    return "; ".join(rules)


def packed_spec(chart: Drawing) -> str:
    """A chart's spec as the pages' script unpacks it."""
    return packed(json.dumps(chart.to_dict(validate=False), allow_nan=False, separators=(",", ":")).encode())


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
