"""LR Atlas inside other libraries: Lightning, Hugging Face Transformers, Optuna, and experiment trackers.

Each module needs the library that it is named after, an extra of this package; none is imported by ``import lratlas``.
"""

from collections.abc import Generator
from contextlib import contextmanager

from lratlas.errors import MissingLibrary


@contextmanager
def extra(name: str) -> Generator[None]:
    """Around the imports of libraries that an extra of this package installs: says which one where they are not there.

    Args:
        name: The extra.

    Raises:
        MissingLibrary: A library is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        raise MissingLibrary(f"{library} is not installed; this installs it: pip install 'lratlas[{name}]'") from error
