"""The script that draws the charts of a page comes with the package."""

from lratlas.report.bundle import make_bundle, vega_bundle
from lratlas.report.figures import VERSION


def test_the_script_is_the_one_that_vl_convert_makes_of_the_same_vega_lite() -> None:
    assert vega_bundle() == make_bundle(VERSION)
