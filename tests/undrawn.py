"""Studies whose page is not drawn, where another test does."""

from collections.abc import Generator
from contextlib import contextmanager
from unittest.mock import patch

from lratlas.atlas import Atlas


@contextmanager
def undrawn() -> Generator[None]:
    with patch.object(Atlas, "write_report", return_value=""):
        yield
