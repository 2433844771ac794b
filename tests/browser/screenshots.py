"""Pictures of a report for a person to look at: phone and desktop, light and dark, and as it is printed.

From the folder `tests`; without a study, of a synthetic one:

    python -m browser.screenshots OUT [FOLDER]
"""

import argparse
import tempfile
from pathlib import Path

from playwright.sync_api import Browser

from browser.browsing import DESKTOP, PHONE, chromium, visit
from browser.made_up import write_study
from lratlas.atlas import load


def main() -> None:
    parser = argparse.ArgumentParser(description="Write pictures of a report.")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("folder", type=Path, nargs="?", help="a study; a made-up one if left out")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, chromium() as browser:
        folder = given.folder or Path(scratch, "study")
        if given.folder is None:
            write_study(folder)
        page = Path(scratch, "report.html")
        page.write_text(load(folder).report_html(), encoding="utf-8")
        for screen, size in (("desktop", DESKTOP), ("phone", PHONE)):
            for theme in ("light", "dark"):
                picture(browser, page, given.out / f"{screen}-{theme}.png", size=size, dark=theme == "dark")
        printed(browser, page, given.out / "printed.pdf")


def picture(browser: Browser, page: Path, out: Path, *, size: tuple[int, int], dark: bool) -> None:
    """The whole page with every chart drawn, from top to bottom."""
    opened = visit(browser, page, size=size, dark=dark)
    opened.draw_all()
    opened.page.evaluate("scrollTo(0, 0)")
    opened.page.screenshot(path=out, full_page=True)
    opened.page.context.close()


def printed(browser: Browser, page: Path, out: Path) -> None:
    """The page on paper."""
    opened = visit(browser, page)
    opened.draw_all()
    opened.page.pdf(path=out, format="A4", print_background=True)
    opened.page.context.close()


if __name__ == "__main__":
    main()
