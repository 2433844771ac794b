"""Opening a page in a headless Chromium and noting what it does there."""

import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Dialog, Error, Locator, Page, Request, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DESKTOP, PHONE = (1280, 900), (390, 844)  # width and height in CSS pixels
PATIENCE = 20_000  # milliseconds, for a machine that has other things to do


@dataclass(frozen=True)
class Visit:
    """A page that is open, and what happened on it so far.

    Attributes:
        page: The page.
        complaints: Errors, warnings of the console, and dialogs.
        requests: Addresses that were asked for, the page's own left out.
    """

    page: Page
    complaints: list[str] = field(default_factory=list[str])
    requests: list[str] = field(default_factory=list[str])

    @property
    def outside(self) -> list[str]:
        """The requests that left the file."""
        return [address for address in self.requests if not address.startswith(("data:", "blob:"))]

    def figure(self, chart: str) -> Locator:
        """The figure of a chart, drawn."""
        figure = self.page.locator(f"figure#chart-{chart}")
        figure.scroll_into_view_if_needed()
        self.page.locator(f"figure#chart-{chart}[data-drawn]").wait_for()
        return figure

    def draw_all(self) -> list[str]:
        """Draw every chart of the page, and give their names."""
        names = self.page.locator("figure .chart[data-chart]").evaluate_all("all => all.map(one => one.dataset.chart)")
        for name in names:
            self.figure(name)
        return names


@contextmanager
def chromium() -> Generator[Browser]:
    """A headless Chromium, the one of the system."""
    with sync_playwright() as playwright:
        # Only our own pages are opened, and containers often forbid the sandbox.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


def visit(browser: Browser, path: Path, *, size: tuple[int, int] = DESKTOP, dark: bool = False) -> Visit:
    """Open a file in its own window, which the caller closes: ``page.context.close()``."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE)
    opened, address = Visit(context.new_page()), path.as_uri()

    def hear(message: ConsoleMessage) -> None:
        if message.type in {"warning", "error"}:
            opened.complaints.append(f"{message.type}: {message.text}")

    def fail(error: Error) -> None:
        opened.complaints.append(f"error: {error.message}")

    def answer(dialog: Dialog) -> None:
        opened.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def ask(request: Request) -> None:
        if request.url.partition("#")[0] != address:
            opened.requests.append(request.url)

    opened.page.on("console", hear)
    opened.page.on("pageerror", fail)
    opened.page.on("dialog", answer)
    opened.page.on("request", ask)
    opened.page.goto(address)
    return opened


Opener = Callable[..., Visit]
