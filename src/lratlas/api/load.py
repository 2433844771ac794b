"""Open a stored study or search."""

from pathlib import Path
from typing import TYPE_CHECKING

from lratlas.errors import SpecError
from lratlas.study.folder import holds_search

if TYPE_CHECKING:
    from lratlas.atlas import Atlas
    from lratlas.search.finder import Finder
    from lratlas.thresholds import Thresholds


def load(folder: str | Path, *, thresholds: "Thresholds | None" = None) -> "Atlas | Finder":
    """Open a study or a search on disk, finished or not; nothing is trained or written.

    Args:
        folder: The folder of the study or search; a study's may be a URL.
        thresholds: Numbers for the regimes and boundaries of a study that replace the spec's.

    Returns:
        The atlas of a study, or the finder of a search: its ``advice()`` is the result so far, ``results`` the trained
        segments and ``search`` the settings.

    Raises:
        StudyError: The folder contains neither.
        SearchError: The settings of the search are damaged.
        SpecError: ``thresholds`` are given for a search.
    """
    if holds_search(folder):
        from lratlas.search.finder import Finder

        if thresholds is not None:
            raise SpecError(f"{folder} is a search, and thresholds only apply to studies; omit them.")
        return Finder(folder)
    from lratlas.atlas import load as load_study

    return load_study(folder, thresholds=thresholds)
