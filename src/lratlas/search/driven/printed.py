"""The metrics in what a training prints: found by a name, by a pattern, or by the words before a number."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lratlas.errors import SpecError
from lratlas.text import ESCAPES as SEQUENCES
from lratlas.text import number

ESCAPES = re.compile(SEQUENCES)
"""Colours, movements of the cursor and titles in what is printed."""
_NUMBER = r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|inf(?:inity)?)"
_BETWEEN = r"\s*(?:[:=]|is)?\s*|\s+(?:of|on|over|in|at)\s(?!class)[^:=,;|()\n]{0,60}[:=]\s*"
_UP_TO = rf"[\"']?(?:\s*\([^()\n]{{0,40}}\))?(?:{_BETWEEN})\(?"
_WITH_COMMA = r"[-+]?\d+(?:,\d+)+(?:\.\d+)?"
_AFTER = rf"{_UP_TO}({_NUMBER})(?!\d|,\d)(?:\s*/\s*(\d+)\b(?!\.\d))?"
"""What follows the name of a metric: the number, and what it is divided by, as in 9873/10000."""
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
_LONGEST = 2_000  # characters of a line; a longer one is no report
_MOST = 12  # values in a message


@dataclass(frozen=True, kw_only=True)
class Printed:
    """A metric that the training prints, or returns at its end.

    Attributes:
        name: Its name, or the pattern that finds it.
        pattern: Finds it in a line; None for a name of `Heard`.
        by_name: Whether the pattern was made from the name: then values of the training set and extremes do not count.
        every: The steps after which it is printed again; None where the training gets its length, and the last
            value counts.
        late: After how many steps more it is printed.
    """

    name: str
    pattern: re.Pattern[str] | None = None
    by_name: bool = False
    every: int | None = None
    late: int = 0


@dataclass(kw_only=True)
class Heard:
    """The metrics in what a training has printed.

    Attributes:
        sought: The metric that is looked for; None for any of a validation set.
        values: By name, the steps after which it was printed, with its last value there.
        several: By name, the steps after which lines with different values of it were printed, with the values.
        unclear: The different values on one line of the metric that is looked for, the first such line; else empty.
        of_return: Names of numbers in what was returned.
    """

    sought: Printed | None = None
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    several: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    unclear: list[float] = field(default_factory=list)
    of_return: set[str] = field(default_factory=set)
    _open: str = ""
    _lines: dict[str, tuple[int, list[float]]] = field(default_factory=dict)  # by name, the last step and its values

    def hear(self, text: str, step: int) -> None:
        """What was printed, after this number of optimizer steps."""
        *lines, self._open = _LINE.split(self._open + text)
        self._open = self._open[: _LONGEST + 1]
        for line, end in zip(lines[::2], lines[1::2], strict=True):
            self._read_line(line, step, stays=end != "\r")

    def last(self, *, after: int) -> float | None:
        """The last value of the metric that is looked for, if it was printed after more steps than these."""
        found = self.values.get(self.sought.name, {}) if self.sought else {}
        step = max(found, default=0)
        return found[step] if step > after else None

    def record_return(self, value: object, step: int) -> None:
        """What the training returned at its end: a number, or a dictionary with the metric; a last line has ended."""
        self.hear("\n", step)
        found = value if isinstance(value, Mapping) else {RETURNED: value}
        for name, each in found.items():
            if (metric := number(each)) is not None:
                self.of_return.add(str(name))
                self.add(str(name), metric, step)

    def add(self, name: str, value: float, step: int) -> None:
        """A value of a metric, if it is one that is looked for."""
        if self.sought is None or same_name(name, self.sought.name):
            self.values.setdefault(self.sought.name if self.sought else name, {})[step] = value

    def _read_line(self, line: str, step: int, *, stays: bool) -> None:
        """Read a line; one that does not stay is overwritten by the next one, as progress bars are."""
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
        """Note where lines after one step have different values of a name."""
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
    """By name, the values of validation sets in a line; the one that counts is the last in the list."""
    values = dict[str, list[float]]()
    for found in _METRIC.finditer(line):
        # The last set that is named before the number: "val" in "train loss 0.1, val loss 0.2".
        sets = [*_MARK.finditer(line, 0, found.start(2))]
        if sets and sets[-1]["held"] and not is_extreme(found, sets[-1].start()):
            name, value = f"{sets[-1]['held']} {found['name']}".lower(), parse_number(found)
            if value is not None:  # of several the first one in the line counts
                values.setdefault(name, []).insert(0, value)
    return values


RETURNED = "the number that it returns"


def most_telling(heard: Heard) -> str | None:
    """Of the metrics that a training prints or returns, the one to choose by; None if there is none.

    Of a validation set rather than a test set; rather one that is better when higher, such as an accuracy, than a loss.
    """

    def rank(name: str) -> tuple[bool, bool, int]:
        return _has(_TO_CHOOSE_ON, name), better(name) == "maximize", len(heard.values[name])

    held = [
        name for name in heard.values if _has(_HELD_OUT, name) or (name in heard.of_return and not _has(_SEEN, name))
    ]
    return max(held, key=rank, default=None)


def better(name: str) -> Literal["minimize", "maximize"] | None:
    """Which way a metric is better, by its name; None where this does not tell."""
    higher, lower = _has(_HIGHER, name), _has(_LOWER, name)
    return None if higher == lower else "maximize" if higher else "minimize"


def known_direction(name: str, given: Literal["minimize", "maximize"] | None) -> Literal["minimize", "maximize"]:
    """Which way a metric is better: as given, or by its name.

    Raises:
        SpecError: It is not given, and the name does not tell.
    """
    direction = given or better(name)
    if direction is None:
        raise SpecError(f"Is a lower or a higher {name} better? Give direction: minimize or maximize.")
    return direction


def _has(words: str, name: str) -> bool:
    return bool(re.search(rf"(?i)(?<![A-Za-z])(?:{words}){_EDGE}", name))


def make_printed(metric: str | None, pattern: re.Pattern[str] | None) -> Printed | None:
    """The metric that a training prints, by its name or by a pattern; None where neither is given."""
    if pattern is not None:
        return Printed(name=metric or pattern.pattern, pattern=pattern)
    return None if metric is None else Printed(name=metric, pattern=metric_pattern(metric), by_name=True)


def metric_pattern(metric: str | None) -> re.Pattern[str]:
    """Finds a number after the name of a metric; after any word such as accuracy or loss where there is no name.

    Upper and lower case are equal in a name, and so are a space, ``_``, ``-``, ``/`` and nothing between its words.
    """
    return re.compile(f"{_quote_metric(metric)}{_AFTER}")


def _quote_metric(metric: str | None) -> str:
    words = map(re.escape, _SEPARATORS.split(metric)) if metric else [r"\w*(?:acc|loss|error|perplexity|score)\w*"]
    return rf"(?i)(?<![\w])(?P<name>{f'{_SEPARATOR}*'.join(words)})"


def comma_pattern(metric: str) -> re.Pattern[str]:
    """Finds, as its last group, a number with a comma after the name of a metric; such a number is not read."""
    return re.compile(f"{_quote_metric(metric)}{_UP_TO}({_WITH_COMMA})")


def same_name(one: str, other: str) -> bool:
    """Whether two names of a metric differ only as `metric_pattern` allows."""
    return _SEPARATORS.sub("", one).lower() == _SEPARATORS.sub("", other).lower()


def find_values(metric: str, pattern: re.Pattern[str], line: str) -> list[float]:
    """The values of a named metric in a line.

    Values of the training set, where the name does not ask for them, and extremes, such as the best value so far, are
    left out.

    Args:
        metric: Its name.
        pattern: The `metric_pattern` of the name.
        line: What was printed.
    """
    found = [each for each in pattern.finditer(line) if not is_extreme(each, each.start())]
    return numbers_of(each for each in found if _SET.search(metric) or not _of_training(line[: each.start()]))


def of_training(pattern: re.Pattern[str], line: str) -> bool:
    """Whether a line has a value that `find_values` leaves out, since the training set is named before it."""
    return any(_of_training(line[: each.start()]) for each in pattern.finditer(line))


def _of_training(before: str) -> bool:
    """Whether the last set that a text names is the training set."""
    sets = [*_SET.finditer(before)]
    return bool(sets) and not sets[-1]["held"]


def is_extreme(found: re.Match[str], start: int) -> bool:
    """Whether a value is the best, the largest or the like: the word is before the start, or before the number.

    Args:
        found: The match of a value after its name.
        start: Where the words begin that say what the value is, such as that of its set.
    """
    starts = {start, found.start()}
    before = any(_AFTER_EXTREME.search(found.string, 0, each) for each in starts)
    return before or bool(_EXTREME.search(found.string, found.end("name"), found.start(2)))


def numbers_of(matches: Iterable[re.Match[str]]) -> list[float]:
    """The numbers that a pattern has found."""
    return [value for each in matches if (value := parse_number(each)) is not None]


def parse_number(found: re.Match[str]) -> float | None:
    """The number of a match: its only group, or the one after the name, divided by the next one as in 9873/10000."""
    if found.re.groups == 1:
        return number(found[1])
    value, whole = number(found[2]), number(found[3] or "")
    return value / whole if value is not None and whole else value


def differ(values: Sequence[float]) -> bool:
    """Whether there are different values; NaN is one of them."""
    return len(set(map(repr, values))) > 1


def join_values(values: Sequence[float]) -> str:
    """The different values, in order."""
    texts = [*dict.fromkeys(f"{each:.6g}" for each in values)]
    return ", ".join(texts[:_MOST]) + ", …" * (len(texts) > _MOST)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression whose only group is the metric in what is printed.

    Raises:
        SpecError: It is not a regular expression, or has another number of groups.
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
