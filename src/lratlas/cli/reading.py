"""Commands that read studies and searches: status, show, verify, compare, serve."""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from lratlas.atlas import Atlas
from lratlas.cli.options import CORES, DataRoot, FolderArgument, Format, Json, look_for_data
from lratlas.cli.terminal import notice, print_json, print_table, say, time_text
from lratlas.errors import SearchError, SpecError, meant
from lratlas.study.progress import Standing, is_done, listing, standing
from lratlas.study.records import read_failures
from lratlas.tables import table

if TYPE_CHECKING:
    import polars as pl

    from lratlas.search.advice import Advice
    from lratlas.search.finder import Finder
    from lratlas.study.store import Store
    from lratlas.study.verify import Fault


app = typer.Typer()


@app.command()
def compare(
    folders: Annotated[list[str], typer.Argument(help="The studies' folders, or their URLs.", metavar="FOLDER…")],
    form: Format = "table",
    html: Annotated[str | None, typer.Option(help="Also write a page with table and chart.", metavar="FILE")] = None,
) -> None:
    """Put several studies side by side: boundaries, best PLRs against the convergence threshold, gains."""
    from lratlas.api.compare import compare as compared
    from lratlas.report.charts.comparison import NOTE

    found = compared(folders)
    table = found.table
    if html is not None:
        found.write_html(html)
    if form == "csv":
        sys.stdout.write(table.write_csv())
    elif form == "json":
        print_json(table.to_dicts())
    else:
        print_table(found.readable())
        say(NOTE)
    if html is not None:
        notice(f"The page is in {html}.")


def _port(given: str | int) -> int:
    # Typer's own message would not name the value.
    text = str(given).strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 2**16):
        raise SpecError(f"--port is {text!r}, but must be a whole number from 0 (any free one) to 65535.")
    return int(text)


def serve(
    folder: FolderArgument,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 lets the network in.", metavar="ADDRESS")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="The port to listen on; 0 for any free one.", metavar="PORT", parser=_port)
    ] = 0,
) -> None:
    """Show a study's page in a browser, also while it runs; prints the address, and goes on until Ctrl-C."""
    from lratlas.atlas import load
    from lratlas.serve import LiveServer
    from lratlas.study.progress import version

    store = load(folder).store
    with LiveServer(
        render=lambda: load(folder).report_html(live=True), version=lambda: version(store), host=host, port=port
    ) as server:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end)
        if server.to_others:
            notice(
                "anybody on the network who has the address can read the study; elsewhere than on this machine it"
                " begins with this machine's name or number."
            )
        notice(f"{store.url} is shown, read-only, until Ctrl-C.")
        say(server.url)
        sys.stdout.flush()
        server.serve_forever()


def _end(_signal: int, _frame: object) -> NoReturn:
    # At once: there is nothing to tidy up, and libraries at work on a page do not bear an orderly end around them.
    notice("ended.")
    sys.stderr.flush()
    os._exit(0)


DAMAGED = 1
"""The exit code where something is wrong and was not repaired."""


def verify(
    folder: FolderArgument,
    repair: Annotated[bool, typer.Option("--repair", help="Compute what is damaged or missing again.")] = False,
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Check every file of a study against its checksum, and name what is damaged or missing."""
    look_for_data(data_root)
    from lratlas.study.store import Store
    from lratlas.study.verify import faults, unchecked

    store = Store.open(folder)
    found = faults(store)
    if found and repair:
        with redirect_stdout(sys.stderr):
            _repair(store, found)
    left = faults(store) if found and repair else found
    without = unchecked(store)
    if as_json:
        print_json({"faults": [asdict(each) for each in found], "left": len(left), "unchecked": without})
    else:
        for each in found:
            say(f"{each.path}: {each.what}")
        for path in without:
            say(f"{path}: has no checksum")
        say(_sentence(len(found), len(left), len(without)))
    if left:
        raise typer.Exit(DAMAGED)


def _repair(store: "Store", found: "Sequence[Fault]") -> None:
    """Make again what can be made from other files, then what has to be trained or measured for it."""
    from lratlas.api.explore import resume
    from lratlas.atlas import load
    from lratlas.study.artifacts import is_made
    from lratlas.study.verify import is_note

    made = [each.path for each in found if is_made(each.path)]
    notes = [each.path for each in found if is_note(each.path)]
    for path in (*made, *notes):
        if store.exists(path):
            store.set_aside(path)
    if len(made) + len(notes) < len(found):
        resume(store.url, workers=CORES, notice=notice)
    if made:
        load(store.url).write_report()


def _sentence(found: int, left: int, without: int) -> str:
    if left:
        return f"{left} files are not as they were written; `lratlas verify --repair` makes them again."
    if found:
        return f"{found} files were made again; what they were is in damaged/."
    return "Every other file is as it was written." if without else "Every file is as it was written."


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
    advised = atlas.recommendation()
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
        "recommendation": asdict(advised) if advised else None,
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
        *([f"Regimes: {atlas.regimes_in_short()}"] if len(atlas.regimes) else []),
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
