"""What goes for all tests: without a Chromium those of the browser are left out, and that is said."""

from pathlib import Path

import pytest

from browser.browsing import CHROMIUM

_BROWSER = Path(__file__).parent / "browser"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if not CHROMIUM and _BROWSER in item.path.parents]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not CHROMIUM:
        terminalreporter.write_line("No Chromium is installed here: the browser tests (tests/browser) were left out.")
