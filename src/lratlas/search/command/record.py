"""By what a search with a command judges its segments: the value that the command tells, or its training losses."""

from pathlib import Path
from typing import Literal, get_args

from lratlas.errors import SearchError
from lratlas.search.journal import read_object
from lratlas.study.store.atomic import write_file
from lratlas.study.store.checksum import sealed_json

Judge = Literal["value", "loss"]
FILE = "command.json"
_MEND = "Delete it and start again with the same --metric as before."


def judge_of(root: Path, *, metric: str | None, pattern: str | None = None) -> Judge | None:
    """By what the segments of a search were judged so far.

    Args:
        root: The folder of the search.
        metric: The name that the user gave for the value; None if none was given.
        pattern: The pattern that the user gave for the value; None if none was given.

    Returns:
        None before the first segment was judged.

    Raises:
        SearchError: The search was begun with another name, or the record is damaged.
    """
    path = root / FILE
    if not path.exists():
        return None
    try:
        record = read_object(path.read_bytes())
        judge, named, sought = record["judge"], record["metric"], record.get("pattern")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SearchError(f"{path} is damaged. {_MEND}") from error
    if judge not in get_args(Judge):
        allowed = " or ".join(get_args(Judge))
        raise SearchError(f"{path} is damaged: it judges by {judge!r}, and not by {allowed}. {_MEND}")
    if named != metric:
        raise SearchError(
            f"The metric is {_name(metric)}, but the search in {root} was begun with {_name(named)};"
            f" {'leave --metric out' if named is None else f'give --metric {named}'}, or use another folder."
        )
    if sought != pattern:
        raise SearchError(
            f"--metric-pattern is {pattern!r}, but the search in {root} was begun with {sought!r}; give that one, or"
            " choose another folder."
        )
    return judge


def record_judge(root: Path, judge: Judge, *, metric: str | None, pattern: str | None = None) -> None:
    """Keep by what the segments are judged, for when the search is started again.

    Raises:
        OSError: It cannot be written.
    """
    write_file(root / FILE, sealed_json({"judge": judge, "metric": metric, "pattern": pattern}).encode())


def _name(metric: str | None) -> str:
    return "unnamed (value)" if metric is None else repr(metric)
