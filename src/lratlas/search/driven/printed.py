"""Metrics in the output of a training: found by a name, by a pattern, or by the words before a number."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lratlas.errors import SpecError
from lratlas.text import ESCAPES as SEQUENCES
from lratlas.text import number

ESCAPES = re.compile(SEQUENCES)
"""Colours, cursor movements and titles in terminal output."""
_NUMBER = r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|inf(?:inity)?)"
_BETWEEN = r"\s*(?:[:=]|is)?\s*|\s+(?:of|on|over|in|at)\s(?!class)[^:=,;|()\n]{0,60}[:=]\s*"
_UP_TO = rf"[\"']?(?:\s*\([^()\n]{{0,40}}\))?(?:{_BETWEEN})\(?"
_WITH_COMMA = r"[-+]?\d+(?:,\d+)+(?:\.\d+)?"
_AFTER = rf"{_UP_TO}({_NUMBER})(?!\d|,\d)(?:\s*/\s*(\d+)\b(?!\.\d))?"
"""Text after the name of a metric: the number, and its divisor, as in 9873/10000."""
_TO_CHOOSE_ON = r"val|valid|validation|dev|eval|evaluation"
_HELD_OUT = rf"{_TO_CHOOSE_ON}|test|testing|held"  # data that a model is not trained on
_SETS = rf"(?P<held>{_HELD_OUT})|train|training|trained"
_SET = re.compile(rf"(?i)(?<![A-Za-z])(?:{_SETS})(?![A-Za-z])")
_EXTREMES = r"best|max|min|highest|lowest"
_AFTER_EXTREME = re.compile(rf"(?i)(?<![A-Za-z])(?:{_EXTREMES})[\W_]*(?:(?:{_SETS})[\W_]*)?$")
_EXTREME = re.compile(rf"(?i)(?<![A-Za-z])(?:{_EXTREMES})(?![A-Za-z])")
_SEPARATOR = r"[\s_/-]"
_SEPARATORS = re.compile(f"{_SEPARATOR}+")
_HIGHER = (
    r"acc|accurac(?:y|ies)|f1|f-score|auc|auroc|map|iou|dice|bleu|rouge|psnr|ssim|r2|precision|recall|score|rewards?"
    r"|top[-_@]?\d"
)
_LOWER = r"loss|err|error|ppl|perplexity|nll|mse|mae|rmse|wer|cer|fid|bpc|bpd|elbo"
_SEEN = r"train|training|trained|best|max|min|lr|time"
_EDGE = r"(?![A-Za-z])"
_METRIC = re.compile(rf"(?i)(?<![A-Za-z])(?P<name>(?:{_HIGHER}|{_LOWER}){_EDGE}\w*){_AFTER}")
_MARK = re.compile(rf"(?i)(?<![A-Za-z])(?P<held>(?:{_HELD_OUT}){_EDGE})|(?<![A-Za-z])(?:{_SEEN}){_EDGE}")
_LINE = re.compile(r"(\r\n|[\r\n])")
_LONGEST = 2_000  # characters of a line; a longer one is not a report
_MOST = 12  # values in a message


@dataclass(frozen=True, kw_only=True)
class Printed:
    """A metric that the training prints, or returns at its end.

    Attributes:
        name: Name of the metric, or the pattern that finds it.
        pattern: Finds the metric in a line; None for a name of `Heard`.
        by_name: Whether the pattern was made from the name: values of the training set and extremes are then ignored.
        every: Steps between two outputs; None if the training receives its length, and the last value counts.
        late: Additional steps until the metric is printed.
    """

    name: str
    pattern: re.Pattern[str] | None = None
    by_name: bool = False
    every: int | None = None
    late: int = 0


@dataclass(kw_only=True)
class Heard:
    """Metrics in the output of a training.

    Attributes:
        sought: The metric to find; None for any metric of a validation set.
        values: By name, the steps after which it was printed, and its last value at each.
        several: By name, the steps after which several lines with different values were printed, and the values.
        unclear: Different values of ``sought`` on the first line that has several; otherwise empty.
        of_return: Names of numbers in the return value.
    """

    sought: Printed | None = None
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    several: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    unclear: list[float] = field(default_factory=list)
    of_return: set[str] = field(default_factory=set)
    _open: str = ""
    _lines: dict[str, tuple[int, list[float]]] = field(default_factory=dict)  # by name, the last step and its values

    def hear(self, text: str, step: int) -> None:
        """Read text that was printed after this number of optimizer steps."""
        *lines, self._open = _LINE.split(self._open + text)
        self._open = self._open[: _LONGEST + 1]
        for line, end in zip(lines[::2], lines[1::2], strict=True):
            self._read_line(line, step, stays=end != "\r")

    def last(self, *, after: int) -> float | None:
        """Last value of ``sought`` that was printed after more than ``after`` steps."""
        found = self.values.get(self.sought.name, {}) if self.sought else {}
        step = max(found, default=0)
        return found[step] if step > after else None

    def record_return(self, value: object, step: int) -> None:
        """Read the training's return value, a number or a dictionary with the metric; this ends the last line."""
        self.hear("\n", step)
        found = value if isinstance(value, Mapping) else {RETURNED: value}
        for name, each in found.items():
            if (metric := number(each)) is not None:
                self.of_return.add(str(name))
                self.add(str(name), metric, step)

    def add(self, name: str, value: float, step: int) -> None:
        """Add a value of a metric if it matches ``sought``."""
        if self.sought is None or same_name(name, self.sought.name):
            self.values.setdefault(self.sought.name if self.sought else name, {})[step] = value

    def _read_line(self, line: str, step: int, *, stays: bool) -> None:
        """Read a line; with ``stays`` False, the next one overwrites it, as in progress bars."""
        if len(line) > _LONGEST:
            return
        line = ESCAPES.sub("", line)
        sought = self.sought
        found = self._find_sought(line, sought, sought.pattern) if sought and sought.pattern else _metrics_in(line)
        for name, values in found.items():
            self.add(name, values[-1], step)
            if stays:
                self._compare(name, values, step)

    def _compare(self, name: str, values: list[float], step: int) -> None:
        """Record lines with different values of a name after the same step."""
        before = self._lines.get(name, (step, []))
        every = [*(before[1] if before[0] == step else []), *values]
        self._lines[name] = step, every
        if differ(every):
            self.several.setdefault(name, {})[step] = every

    def _find_sought(self, line: str, sought: Printed, pattern: re.Pattern[str]) -> dict[str, list[float]]:
        if not sought.by_name:
            values = numbers_of(pattern.finditer(line))
        elif differ(values := find_values(sought.name, pattern, line)):
            self.unclear = self.unclear or values
        return {sought.name: values} if values else {}


def _metrics_in(line: str) -> dict[str, list[float]]:
    """By name, the values of validation sets in a line; the last one in each list counts."""
    values = dict[str, list[float]]()
    for found in _METRIC.finditer(line):
        # The last set named before the number: "val" in "train loss 0.1, val loss 0.2".
        sets = [*_MARK.finditer(line, 0, found.start(2))]
        if sets and sets[-1]["held"] and not is_extreme(found, sets[-1].start()):
            name, value = f"{sets[-1]['held']} {found['name']}".lower(), parse_number(found)
            if value is not None:  # the first of several in the line counts
                values.setdefault(name, []).insert(0, value)
    return values


RETURNED = "the number that it returns"


def most_telling(heard: Heard) -> str | None:
    """The best metric to compare LRs by among those that a training prints or returns; None if there is none.

    Validation sets take precedence over test sets, and metrics to maximize, such as an accuracy, over losses.
    """

    def rank(name: str) -> tuple[bool, bool, int]:
        return _has(_TO_CHOOSE_ON, name), better(name) == "maximize", len(heard.values[name])

    held = [
        name for name in heard.values if _has(_HELD_OUT, name) or (name in heard.of_return and not _has(_SEEN, name))
    ]
    return max(held, key=rank, default=None)


def better(name: str) -> Literal["minimize", "maximize"] | None:
    """Direction in which a metric is better, from its name; None if the name does not show it."""
    higher, lower = _has(_HIGHER, name), _has(_LOWER, name)
    return None if higher == lower else "maximize" if higher else "minimize"


def known_direction(name: str, given: Literal["minimize", "maximize"] | None) -> Literal["minimize", "maximize"]:
    """Direction in which a metric is better: as given, or from its name.

    Raises:
        SpecError: The direction is not given, and the name does not show it.
    """
    direction = given or better(name)
    if direction is None:
        raise SpecError(f"Is a lower or a higher {name} better? Set direction to minimize or maximize.")
    return direction


def _has(words: str, name: str) -> bool:
    return bool(re.search(rf"(?i)(?<![A-Za-z])(?:{words}){_EDGE}", name))


def make_printed(metric: str | None, pattern: re.Pattern[str] | None) -> Printed | None:
    """The metric that a training prints, by its name or a pattern; None if neither is given."""
    if pattern is not None:
        return Printed(name=metric or pattern.pattern, pattern=pattern)
    return None if metric is None else Printed(name=metric, pattern=metric_pattern(metric), by_name=True)


def metric_pattern(metric: str | None) -> re.Pattern[str]:
    """Compile a pattern for a number after the name of a metric; without a name, after a word such as accuracy.

    Case does not matter in a name. A space, ``_``, ``-``, ``/`` and nothing between its words are equal.
    """
    return re.compile(f"{_quote_metric(metric)}{_AFTER}")


def _quote_metric(metric: str | None) -> str:
    words = map(re.escape, _SEPARATORS.split(metric)) if metric else [r"\w*(?:acc|loss|error|perplexity|score)\w*"]
    return rf"(?i)(?<![\w])(?P<name>{f'{_SEPARATOR}*'.join(words)})"


def comma_pattern(metric: str) -> re.Pattern[str]:
    """Compile a pattern for a number with a comma after a metric's name, as the last group; it is not parsed."""
    return re.compile(f"{_quote_metric(metric)}{_UP_TO}({_WITH_COMMA})")


def same_name(one: str, other: str) -> bool:
    """Whether two names of a metric differ only in ways that `metric_pattern` ignores."""
    return _SEPARATORS.sub("", one).lower() == _SEPARATORS.sub("", other).lower()


def find_values(metric: str, pattern: re.Pattern[str], line: str) -> list[float]:
    """Find the values of a named metric in a line.

    Values of the training set, unless the name asks for them, and extremes, such as the best value so far, are ignored.

    Args:
        metric: Name of the metric.
        pattern: The `metric_pattern` of the name.
        line: A line of output.
    """
    found = [each for each in pattern.finditer(line) if not is_extreme(each, each.start())]
    return numbers_of(each for each in found if _SET.search(metric) or not _of_training(line[: each.start()]))


def of_training(pattern: re.Pattern[str], line: str) -> bool:
    """Whether a line has a value that `find_values` ignores because the training set is named before it."""
    return any(_of_training(line[: each.start()]) for each in pattern.finditer(line))


def _of_training(before: str) -> bool:
    """Whether the last set named in a text is the training set."""
    sets = [*_SET.finditer(before)]
    return bool(sets) and not sets[-1]["held"]


def is_extreme(found: re.Match[str], start: int) -> bool:
    """Whether a value is an extreme: a word such as best is before the start, or before the number.

    Args:
        found: The match of a value after its name.
        start: Start of the words that describe the value, such as its set.
    """
    starts = {start, found.start()}
    before = any(_AFTER_EXTREME.search(found.string, 0, each) for each in starts)
    return before or bool(_EXTREME.search(found.string, found.end("name"), found.start(2)))


def numbers_of(matches: Iterable[re.Match[str]]) -> list[float]:
    """The numbers in the matches of a pattern."""
    return [value for each in matches if (value := parse_number(each)) is not None]


def parse_number(found: re.Match[str]) -> float | None:
    """Number of a match: its only group, or the group after the name, divided by the next one as in 9873/10000."""
    if found.re.groups == 1:
        return number(found[1])
    value, whole = number(found[2]), number(found[3] or "")
    return value / whole if value is not None and whole else value


def differ(values: Sequence[float]) -> bool:
    """Whether there are different values; NaN counts as a value."""
    return len(set(map(repr, values))) > 1


def join_values(values: Sequence[float]) -> str:
    """The different values, in order."""
    texts = [*dict.fromkeys(f"{each:.6g}" for each in values)]
    return ", ".join(texts[:_MOST]) + ", …" * (len(texts) > _MOST)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a regular expression whose only group is the metric in printed text.

    Raises:
        SpecError: The text is not a regular expression, or the number of groups is not one.
    """
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise SpecError(
            f"The pattern {pattern!r} is not a regular expression, such as acc=([0-9.]+): {error}."
        ) from error
    if found.groups != 1:
        raise SpecError(f"The pattern {pattern!r} has {found.groups} groups, but must have one, as in acc=([0-9.]+).")
    return found
