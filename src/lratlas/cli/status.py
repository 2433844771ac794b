"""The output of `lratlas status` and related commands for a study or a search."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from lratlas.analysis.scores import score_of
from lratlas.atlas import Atlas
from lratlas.bars import time_text
from lratlas.cli.terminal import VERDICT_STYLES, print_json, print_table, say
from lratlas.errors import SearchError, meant
from lratlas.lines import Part, regimes_line
from lratlas.recommendation import Recommendation, facts_of
from lratlas.study.folder import REPORT
from lratlas.study.progress import Standing, is_done, listing, standing
from lratlas.study.records import read_failures
from lratlas.tables import table
from lratlas.text import format_lr, join_words

if TYPE_CHECKING:
    import polars as pl

    from lratlas.search.advice import Advice
    from lratlas.search.finder import Finder


_TABLES = ("evidence", "longest", "compared")


def print_search_status(folder: str, *, as_json: bool) -> None:
    """Print the progress of a search, and its advice so far.

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
    if advice is None:
        say(f"No advice yet: {reason}")
    else:
        print_advice(advice)
    say(f"Search in {finder.folder}: {state}, {segments}, {cost:.2f} of {budget:g} full trainings")


def print_advice(advice: "Advice") -> None:
    """Print the statement, a line for each of its parts, then the notes."""
    first, *others = advice.statement.splitlines()
    say((first, "bold"), lead=("→ ", "bold"))
    for line in others:
        say(line, lead="  ")
    for warning in advice.warnings:
        say(warning, lead=("• ", "yellow"))


def search_table(folder: str, table: str | None) -> "pl.DataFrame":
    """A table of a search's advice.

    Args:
        folder: The search folder.
        table: ``evidence``, one row per segment (the default); ``longest``, one row per LR; ``compared``, one row per
            LR and length at which LRs were compared.

    Raises:
        SearchError: The table does not exist, or there is no advice yet.
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
    """Rewrite the page and figure of a search's advice.

    Raises:
        SearchError: There is no advice yet, or a file cannot be written.
    """
    from lratlas.api.advise import write_advice
    from lratlas.search.finder import Finder

    finder = Finder(folder)
    say(f"Report: {write_advice(finder.advice(), finder.folder)}")


def _advice(finder: "Finder") -> tuple["Advice | None", str]:
    """The advice, or the reason for its absence."""
    try:
        return finder.advice(), ""
    except SearchError as error:
        return None, str(error)


_UNMEASURED = "not measured"
SIGNS: Mapping[str, str] = {"supported": "✓", "contradicted": "✗", "inconclusive": "?", "not measured": "–"}


def standing_of(atlas: Atlas) -> Standing:
    """The progress of a study.

    Raises:
        StudyError: A table is damaged.
    """
    return standing(atlas.store, atlas.plan, atlas.tables, atlas.spec.refine)


def facts(atlas: Atlas, found: Standing) -> dict[str, object]:
    """The progress, advice and verdicts of a study, for scripts; null for values that are not known yet."""
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


def print_status(atlas: Atlas, found: Standing) -> None:
    """Print the answer, then boundaries and verdicts, then the progress and provenance of the study."""
    # Read before printing, since a table may be damaged.
    verdicts, failures, so_far = _verdicts(atlas), _failures(atlas), found.state != "finished"
    print_answer(atlas, so_far=so_far)
    if atlas.recommendation is None:
        for sentence in atlas.summary:
            say(sentence, lead="→ ")
    if len(atlas.boundaries):
        print_table(atlas.boundaries)
    if len(atlas.regimes):
        say(*regimes_line(atlas.regimes_in_short), lead="Regimes: ")
    if verdicts:
        say(f"Verdicts{', so far' if so_far else ''}: {verdict_count(atlas)}")
    for lead, text in verdicts:
        say(text, lead=lead)
    for text in [*_progress(atlas, found), *failures]:
        say(text)
    if atlas.store.exists(REPORT):
        say(f"Report: {atlas.folder}/{REPORT}")


def print_answer(atlas: Atlas, *, so_far: bool = False) -> None:
    """Print the recommendation with its evidence, in one line; nothing if there is none yet."""
    if advised := atlas.recommendation:
        begun = "So far: " if so_far else ""
        say((f"{begun}{advised.statement}", "bold"), f" ({_evidence(atlas, advised)})", lead=("→ ", "bold"))


def _evidence(atlas: Atlas, advised: Recommendation) -> str:
    """The number of compared LRs and seeds, and the score of the next best LR."""
    score, compared = score_of(atlas.tables["runs"]), advised.evidence
    seeds = compared["seeds"].max()
    words = f"{len(compared)} LRs compared, {seeds} {'seed' if seeds == 1 else 'seeds'} each"
    others = compared.filter(compared["lr"] != advised.lr).sort("value", descending=score.more_is_better)
    if others.is_empty():
        return words
    return f"{words}; next best {format_lr(others['lr'][0])}: {score.show(others['value'][0])}"


def _progress(atlas: Atlas, found: Standing) -> list[str]:
    """The progress and provenance of a study; only its state if it is not planned yet."""
    head = f"{atlas.spec.name} in {atlas.folder}: {found.state}"
    if atlas.plan is None:
        return [head]
    done = ", ".join(f"{kind} {count.done:,} of {count.total:,}" for kind, count in found.kinds.items())
    return [
        f"{head}, {found.jobs.done:,} of {found.jobs.total:,} jobs done",
        f"Jobs: {done}",
        f"SGD steps: {found.steps.done:,} of {found.steps.total:,}{_pace(found)}",
        f"Made with {atlas.plan.versions}, format {atlas.plan.format}",
    ]


def _failures(atlas: Atlas) -> list[str]:
    """The retried and abandoned jobs that are not done."""
    failures = read_failures(atlas.store)
    if not failures:
        return []
    there = listing(atlas.store)
    done = {job.id for job in (atlas.plan.jobs if atlas.plan else ()) if is_done(there, job)}
    given_up = {each.job: each.reason for each in failures if each.given_up and each.job not in done}
    head = f"Failed attempts: {len(failures)}, of {len({each.job for each in failures})} jobs"
    return [head, *(f"  not done: {job}: {reason}" for job, reason in given_up.items())]


def _pace(found: Standing) -> str:
    """Rate and time left of a study that still trains, as soon as they are known."""
    if found.rate is None or not found.seconds_left:
        return ""
    return f"; one process trains {found.rate:,.0f} steps/s and needs {time_text(found.seconds_left)} more"


def verdict_count(atlas: Atlas) -> str:
    """The number of the paper's claims per verdict, in words; empty while there are none."""
    verdicts = table(atlas.tables, "claims")["verdict"].to_list()
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in SIGNS) if verdicts else ""


def _verdicts(atlas: Atlas) -> list[tuple[Part, str]]:
    """Sign and statement of each judged claim; the claims that were not measured share one line."""
    claims = table(atlas.tables, "claims")
    measured = claims.filter(claims["verdict"] != _UNMEASURED)
    found: list[tuple[Part, str]] = [
        ((f"{SIGNS[verdict]} {verdict:<12}  ", VERDICT_STYLES[verdict]), f"{claim}: {said}")
        for verdict, claim, said in measured.select("verdict", "claim", "statement").iter_rows()
    ]
    if len(measured) < len(claims):
        names = ", ".join(claims.filter(verdict=_UNMEASURED)["claim"])
        how = f"`lratlas show {shlex.quote(atlas.folder)} claims` shows what they need"
        found.append(((f"{SIGNS[_UNMEASURED]} {_UNMEASURED}  ", VERDICT_STYLES[_UNMEASURED]), f"{names}; {how}"))
    return found
