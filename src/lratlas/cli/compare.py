"""The command ``lratlas compare``: several studies side by side."""

import sys
from typing import Annotated

import typer

from lratlas.cli.options import Format
from lratlas.cli.terminal import notice, print_json, print_table, say

app = typer.Typer()


@app.command()
def compare(
    folders: Annotated[list[str], typer.Argument(help="The studies' folders, or their URLs.", metavar="FOLDER…")],
    form: Format = "table",
    html: Annotated[str | None, typer.Option(help="Also write a page with table and chart.", metavar="FILE")] = None,
) -> None:
    """Put several studies side by side: boundaries, best PLRs against the convergence threshold, gains."""
    from lratlas.comparing import compare as compared
    from lratlas.report.comparison_table import NOTE

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
