"""What `lratlas status` and its kin say of a study or a search."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from lratlas.atlas import Atlas
from lratlas.cli.terminal import print_json, say, time_text
from lratlas.errors import SearchError, meant
from lratlas.recommendation import facts_of
from lratlas.study.progress import Standing, is_done, listing, standing
from lratlas.study.records import read_failures
from lratlas.tables import table
from lratlas.text import join_words

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
    from lratlas.search.rungs import trainings_spent

    finder = Finder(folder)
    results = finder.results
    state = "finished" if finder.finished else "not finished"
    cost, budget = trainings_spent(finder.search, results), finder.search.budget
    failed = sum(each.failure is not None for each in results)
    advice, reason = _advice(finder)
    if as_json:
        from lratlas.api.advise import advice_facts

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
        hint, allowed = meant(name, _TABLES), join_words(_TABLES, "or")
        raise SearchError(f"{folder} is a search, which has no table {name!r}{hint}; choose {allowed}.")
    advice = Finder(folder).advice()
    found = advice.longest() if name == "longest" else getattr(advice, name)
    return found.rename({"steps": advice.counted})


def write_search_report(folder: str) -> None:
    """Write the page and figure of a search's advice again.

    Raises:
        SearchError: There is no advice yet, or a file cannot be written.
    """
    from lratlas.api.advise import write_advice
    from lratlas.search.finder import Finder

    finder = Finder(folder)
    say(f"Report: {write_advice(finder.advice(), finder.folder)}")


def _advice(finder: "Finder") -> tuple["Advice | None", str]:
    """The advice, or why there is none."""
    try:
        return finder.advice(), ""
    except SearchError as error:
        return None, str(error)


SIGNS: Mapping[str, str] = {"supported": "✓", "contradicted": "✗", "inconclusive": "?", "not measured": "–"}


def standing_of(atlas: Atlas) -> Standing:
    """How far a study is.

    Raises:
        StudyError: A table is damaged.
    """
    return standing(atlas.store, atlas.plan, atlas.tables, atlas.spec.refine)


def facts(atlas: Atlas, found: Standing) -> dict[str, object]:
    """How far a study is and what it advises and judges, for scripts; null where that cannot be told yet."""
    advised = atlas.recommendation
    return {
        "state": found.state,
        "jobs": found.jobs.total,
        "done": found.jobs.done,
        "kinds": {kind: asdict(count) for kind, count in found.kinds.items()},
        "format": atlas.plan.format if atlas.plan else None,
        "made_with": [each.model_dump() for each in atlas.plan.made_with] if atlas.plan else [],
        "steps": found.steps.total,
        "steps_done": found.steps.done,
        "failures": [each.model_dump() for each in read_failures(atlas.store)],
        "rate": found.rate,
        "seconds_left": found.seconds_left,
        "recommendation": facts_of(advised),
        "claims": table(atlas.tables, "claims").to_dicts(),
    }


def lines(atlas: Atlas, found: Standing) -> list[str]:
    """The same in lines to be read: the state first; about a study that is not planned yet there is no more."""
    head = f"{atlas.spec.name} in {atlas.folder}: {found.state}"
    if atlas.plan is None:
        return [head]
    done = ", ".join(f"{kind} {count.done:,} of {count.total:,}" for kind, count in found.kinds.items())
    return [
        f"{head}, {found.jobs.done:,} of {found.jobs.total:,} jobs done",
        f"Jobs: {done}",
        f"SGD steps: {found.steps.done:,} of {found.steps.total:,}{_pace(found)}",
        f"Made with {atlas.plan.versions}, format {atlas.plan.format}",
        *_failures(atlas),
        *([f"Regimes: {atlas.regimes_in_short}"] if len(atlas.regimes) else []),
        *_verdicts(atlas, "" if found.state == "finished" else ", so far"),
    ]


def _failures(atlas: Atlas) -> list[str]:
    """What was tried again, and what was given up, while it is not done."""
    failures = read_failures(atlas.store)
    if not failures:
        return []
    there = listing(atlas.store)
    done = {job.id for job in (atlas.plan.jobs if atlas.plan else ()) if is_done(there, job)}
    given_up = {each.job: each.reason for each in failures if each.given_up and each.job not in done}
    head = f"Failed attempts: {len(failures)}, of {len({each.job for each in failures})} jobs"
    return [head, *(f"  not done: {job}: {reason}" for job, reason in given_up.items())]


def _pace(found: Standing) -> str:
    """Rate and time left of a study that still trains, as soon as they can be told."""
    if found.rate is None or not found.seconds_left:
        return ""
    return f"; one process trains {found.rate:,.0f} steps/s and would need {time_text(found.seconds_left)} more"


def verdict_count(atlas: Atlas) -> str:
    """How many of the paper's claims have which verdict, in words; empty while there are none."""
    verdicts = table(atlas.tables, "claims")["verdict"].to_list()
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in SIGNS) if verdicts else ""


def _verdicts(atlas: Atlas, so_far: str) -> list[str]:
    """How many claims have which verdict, then a line for each."""
    claims = table(atlas.tables, "claims")
    if claims.is_empty():
        return []
    rows = claims.select("verdict", "claim", "statement").iter_rows()
    return [
        f"Verdicts{so_far}: {verdict_count(atlas)}",
        *(f"{SIGNS[verdict]} {verdict:<12}  {claim}: {said}" for verdict, claim, said in rows),
    ]
