"""The tables that a report carries, downloaded in a browser."""

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from browser.browsing import Opener
from lratlas.atlas import load
from lratlas.tables import SCHEMAS

pytestmark = pytest.mark.xdist_group("browser")


def test_every_table_downloads_with_the_content_of_the_study(opened: Opener, study: Path, tmp_path: Path) -> None:
    page, tables = opened(study).page, load(study).tables
    buttons = page.locator("#tables button[data-table]")
    offered = buttons.evaluate_all("all => all.map(one => one.dataset.table)")
    assert sorted(offered) == sorted(name for name, table in tables.items() if len(table))
    for name, button in zip(offered, buttons.all(), strict=True):
        with page.expect_download() as waiting:
            button.click()
        # Chromium keeps no more than ten downloads of one page in a second.
        page.wait_for_timeout(100)
        assert waiting.value.suggested_filename == f"{name}.csv"
        waiting.value.save_as(tmp_path / f"{name}.csv")
        found = pl.read_csv(tmp_path / f"{name}.csv", schema=SCHEMAS[name])
        # Six significant digits, says the page.
        assert_frame_equal(found, tables[name], rel_tol=1e-5, abs_tol=0)
