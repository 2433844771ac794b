"""Progress of long work: two lines in a terminal or a notebook, occasional log records elsewhere."""

import html
import sys
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from lratlas.lines import regimes_line
from lratlas.notices import LOG
from lratlas.text import harmless

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

LOGGED_EVERY = 60.0  # seconds
SHOWN_EVERY = 0.5  # seconds, in a notebook
_BAR, _DOING = 16, 20  # characters; with the counts they fit into 80 columns


@dataclass(frozen=True, kw_only=True)
class State:
    """The progress of long work, in words.

    Attributes:
        doing: The current activity.
        done: The amount of work completed.
        total: The total amount of work; None while unknown.
        count: The completed share in words, such as ``12 of 250 jobs``.
        left: The time left; empty while unknown.
        more: Further information, on a separate line.
    """

    doing: str
    done: float = 0.0
    total: float | None = None
    count: str = ""
    left: str = ""
    more: str = ""

    @property
    def percent(self) -> str:
        """The completed share; empty while unknown."""
        return f"{min(1.0, self.done / self.total):.0%}" if self.total else ""


Show: TypeAlias = Callable[[State], None]


@contextmanager
def bar() -> Generator[Show]:
    """Show the progress of long work until it ends: in a terminal (on standard error) or a notebook, else in the log.

    Yields:
        A function to call with each state.
    """
    kind = _in_terminal if sys.stderr.isatty() else _in_notebook if in_notebook() else _in_log
    with kind() as show:
        yield lambda state: show(_harmless(state))


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    # Every notebook kernel has imported IPython.
    ipython = sys.modules.get("IPython")
    return getattr(ipython and ipython.get_ipython(), "kernel", None) is not None


def time_text(seconds: float) -> str:
    """A time in hours, minutes and seconds.

    >>> time_text(3725.2)
    '1:02:05'
    """
    return str(timedelta(seconds=round(seconds)))


def _harmless(state: State) -> State:
    texts = {each.name: getattr(state, each.name) for each in fields(state)}
    return replace(state, **{name: harmless(text) for name, text in texts.items() if isinstance(text, str)})


@contextmanager
def _in_terminal() -> Generator[Show]:
    from rich.console import Console

    # Use the current stream: a search that captures the output of its trainings replaces it later.
    with _two_lines(Console(file=sys.stderr)) as shown:
        task = shown.add_task("", total=None, state=State(doing="preparing"))
        yield lambda state: shown.update(task, completed=state.done, total=state.total, state=state)


def _two_lines(console: "Console") -> "Progress":
    """A bar with the counts on one line, and further information on a second line."""
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column
    from rich.text import Text

    class TwoLines(Progress):
        def get_renderables(self) -> "Iterator[Table | Text]":
            for task in self.tasks:
                more = task.fields["state"].more
                yield self.make_tasks_table([task])
                yield Text.assemble(
                    f"{time_text(task.elapsed or 0)} elapsed",
                    *([" · ", *regimes_line(more)] if more else []),
                    no_wrap=True,
                    overflow="ellipsis",
                )

    def text(name: str) -> TextColumn:
        column = Column(no_wrap=True, overflow="ellipsis", max_width=_DOING if name == "doing" else None)
        return TextColumn(f"{{task.fields[state].{name}}}", markup=False, table_column=column)

    columns = (text("doing"), BarColumn(_BAR), text("percent"), text("count"), text("left"))
    return TwoLines(*columns, console=console, transient=True)


@contextmanager
def _in_notebook() -> Generator[Show]:
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    # Use the current publisher: a search that drops the displays of its trainings replaces it later.
    publish = partial(shell.display_pub.publish, transient={"display_id": uuid.uuid4().hex})

    def put(text: str, *, update: bool = True) -> None:
        publish({"text/html": text, "text/plain": ""}, update=update)

    put("", update=False)
    began, last = time.monotonic(), -SHOWN_EVERY

    def show(state: State) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SHOWN_EVERY:
            last = now
            put(_notebook_html(state, now - began))

    try:
        yield show
    finally:
        put("")


def _notebook_html(state: State, seconds: float) -> str:
    """Both lines as HTML."""
    value = f' value="{state.done / state.total:.4f}"' if state.total else ""
    first = [state.doing, state.percent, state.count, state.left]
    second = [f"{time_text(seconds)} elapsed", state.more]
    lines = (" · ".join(html.escape(each) for each in words if each) for words in (first, second))
    return f"<div><progress{value}></progress> {'<br>'.join(lines)}</div>"


@contextmanager
def _in_log() -> Generator[Show]:
    last = time.monotonic()

    def show(state: State) -> None:
        nonlocal last
        if time.monotonic() - last >= LOGGED_EVERY:
            last = time.monotonic()
            LOG.info("%s", ", ".join(filter(None, (state.doing, state.percent, state.count, state.left, state.more))))

    yield show
