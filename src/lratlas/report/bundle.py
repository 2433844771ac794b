"""Vega, Vega-Lite and Vega-Embed as one script, shipped with the package; `make bundle` regenerates it."""

import gzip
from functools import cache
from pathlib import Path

from lratlas.errors import extra

FILE = Path(__file__).with_name("vega") / "vega.js.gz"


@cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script without imports, so that a page needs no network."""
    return gzip.decompress(FILE.read_bytes()).decode()


def make_bundle(vl_version: str) -> str:
    """Build the script of `vega_bundle` with vl-convert.

    Args:
        vl_version: The version of Vega-Lite, such as ``6.4``.

    Raises:
        MissingLibrary: The extra ``figures`` is not installed.
    """
    with extra("figures"):
        import vl_convert
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=vl_version)
