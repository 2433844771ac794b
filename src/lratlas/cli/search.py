"""What `lratlas status` and `lratlas show` print of a search for an initial LR."""

from typing import TYPE_CHECKING

from lratlas.cli.terminal import print_json, say
from lratlas.errors import SearchError, meant

if TYPE_CHECKING:
    import polars as pl

    from lratlas.search.advice import Advice
    from lratlas.search.finder import Finder

_TABLES = ("evidence", "longest", "compared")


def print_search_status(folder: str, *, as_json: bool) -> None:
    """Show how far a search is, and its advice so far.

    Raises:
        SearchError: The search is damaged.
    """
    from lratlas.search.finder import Finder
    from lratlas.search.rungs import spent

    finder = Finder(folder)
    results = finder.results
    state = "finished" if finder.finished else "not finished"
    cost, budget = spent(finder.search, results), finder.search.budget
    failed = sum(each.failure is not None for each in results)
    advice, reason = _advice(finder)
    if as_json:
        from lratlas.advising import advice_facts

        counts = {"state": state, "segments": len(results), "failed": failed, "cost": cost, "budget": budget}
        settings = finder.search.model_dump(mode="json")
        facts = advice_facts(advice) if advice else None
        print_json({"folder": str(finder.folder), **counts, "settings": settings, "advice": facts})
        return
    segments = f"{len(results)} {'segment' if len(results) == 1 else 'segments'} trained, {failed} of them failed"
    say(f"Search in {finder.folder}: {state}, {segments}, {cost:.2f} of {budget:g} full trainings")
    if advice is None:
        say(f"No advice yet: {reason}")
        return
    print_advice(advice)


def print_advice(advice: "Advice") -> None:
    """The statement, a line for each of its parts, then the notes."""
    first, *others = advice.statement.splitlines()
    say(f"→ {first}")
    for line in others:
        say(f"  {line}")
    for warning in advice.warnings:
        say(f"• {warning}")


def search_table(folder: str, table: str | None) -> "pl.DataFrame":
    """A table of a search's advice.

    Args:
        folder: The search folder.
        table: ``evidence``, a row for each segment (the default); ``longest``, a row for each LR; ``compared``, a row
            for each LR of each length at which LRs were compared.

    Raises:
        SearchError: There is no such table, or no advice yet.
    """
    from lratlas.search.finder import Finder

    name = table or _TABLES[0]
    if name not in _TABLES:
        hint, allowed = meant(name, _TABLES), f"{', '.join(_TABLES[:-1])} or {_TABLES[-1]}"
        raise SearchError(f"{folder} is a search, which has no table {name!r}{hint}; choose {allowed}.")
    advice = Finder(folder).advice()
    found = advice.longest() if name == "longest" else getattr(advice, name)
    return found.rename({"steps": advice.counted})


def write_search_report(folder: str) -> None:
    """Write the page and figure of a search's advice again.

    Raises:
        SearchError: There is no advice yet, or a file cannot be written.
    """
    from lratlas.advising import write_advice
    from lratlas.search.finder import Finder

    finder = Finder(folder)
    say(f"Report: {write_advice(finder.advice(), finder.folder)}")


def _advice(finder: "Finder") -> tuple["Advice | None", str]:
    """The advice, or why there is none."""
    try:
        return finder.advice(), ""
    except SearchError as error:
        return None, str(error)
