"""Several studies side by side: from folders to a table, a chart and a page."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from lratlas.analysis.comparison import Entry, comparison
from lratlas.atlas import Atlas, load
from lratlas.errors import StudyError
from lratlas.html import table as html_table
from lratlas.paths import expand_home
from lratlas.report.charts.comparison import comparison_chart, readable
from lratlas.report.theme import Drawing

_LONGEST = 200  # shown characters of a cell


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison:
    """Several studies side by side. `compare` returns it.

    Attributes:
        entries: The studies in the order given, with unique names.
        folders: Their folders.
    """

    entries: tuple[Entry, ...]
    folders: tuple[str, ...]

    def __repr__(self) -> str:
        """A table with a column per study."""
        with pl.Config(
            tbl_hide_dataframe_shape=True,
            tbl_hide_column_data_types=True,
            tbl_rows=-1,
            tbl_cols=-1,
            tbl_width_chars=-1,
            fmt_str_lengths=_LONGEST,
        ):
            return f"Comparison of {', '.join(each.name for each in self.entries)}\n{self.readable()}"

    def _repr_html_(self) -> str:
        words = self.readable()
        return html_table(words.columns, words.rows())

    @property
    def table(self) -> pl.DataFrame:
        """One row per study, with the columns of ``lratlas.analysis.comparison.COMPARISON``; null if missing."""
        return comparison(self.entries)

    def readable(self) -> pl.DataFrame:
        """The table in words, with a column per study."""
        return readable(self.table)

    def chart(self) -> Drawing:
        """Quality after fine-tuning against the PLR as a multiple of the convergence threshold, with a line per study.

        Raises:
            StudyError: No study has both a threshold and fine-tuned models.
        """
        return comparison_chart(self.entries)

    def html(self) -> str:
        """One page that needs no network, with the table and the chart."""
        from importlib.metadata import version

        from lratlas.report.comparison_page import comparison_page

        facts = {
            "Command": shlex.join(["lratlas", "compare", *self.folders]),
            "Versions": ", ".join(f"{name} {version(name)}" for name in ("lratlas", "polars", "altair")),
        }
        return comparison_page(self.entries, self.table, facts=facts)

    def write_html(self, file: str | Path) -> None:
        """Write the page; an existing file is replaced.

        Raises:
            StudyError: The file cannot be written.
        """
        try:
            expand_home(file).write_text(self.html(), encoding="utf-8")
        except OSError as error:
            raise StudyError(f"The page cannot be written to {file}: {error.strerror or error}.") from error


def compare(studies: Sequence[str | Path | Atlas]) -> Comparison:
    """Put several studies, finished or not, side by side.

    Args:
        studies: Their folders (paths or URLs), or atlases as `explore` and `load` return them.

    Returns:
        The comparison, studies in the order given. Each has its name, with its folder added if two names are equal.

    Raises:
        StudyError: The list is empty or has duplicates, or a folder is not a study.
    """
    if isinstance(studies, str | Path | Atlas) or not studies:
        raise StudyError("There is nothing to compare; pass a list of at least one study folder.")
    atlases = [study if isinstance(study, Atlas) else load(study) for study in studies]
    again = [place for place, times in Counter(_place(atlas) for atlas in atlases).items() if times > 1]
    if again:
        raise StudyError(f"The study in {again[0]} is listed twice; list each study once.")
    names = Counter(atlas.spec.name for atlas in atlases)
    return Comparison(
        entries=tuple(_entry(atlas, shared=names[atlas.spec.name] > 1) for atlas in atlases),
        folders=tuple(atlas.folder for atlas in atlases),
    )


def _place(atlas: Atlas) -> str:
    """The resolved folder, so that different spellings are equal."""
    return atlas.folder if "://" in atlas.folder else str(Path(atlas.folder).resolve())


def _entry(atlas: Atlas, *, shared: bool) -> Entry:
    size = atlas.spec.task.batch_size
    return Entry(
        name=f"{atlas.spec.name} ({atlas.folder})" if shared else atlas.spec.name,
        tables=atlas.tables,
        elr=atlas.elr,
        task=atlas.plan.task if atlas.plan else "",
        batch_size=None if size is None else str(size),
    )
