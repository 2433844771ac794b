"""The validation metric of a training that is suspended: an expression, a function, or what is printed meanwhile."""

import ast
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

from lratlas.config.values import format_value
from lratlas.errors import SearchError, SpecError, first_line, meant
from lratlas.search.driven.printed import (
    compile_pattern,
    differ,
    find_values,
    join_values,
    metric_pattern,
    numbers_of,
    same_name,
)
from lratlas.text import number
from lratlas.training.memory import is_out_of_memory

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
"""The kinds of ``*arguments`` and ``**arguments``."""
_NAMES = 12  # of variables, at most, in a message


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How the metric of a suspended training is computed.

    Attributes:
        text: The expression or the function's name, for messages.
        code: An expression over the variables of the training, compiled.
        function: A function whose arguments are variables of the training, by name.
        metric: Of a dictionary, or of what is printed, the name of the metric.
        pattern: Finds the metric in what is printed, as its first group.
    """

    text: str
    code: CodeType | None = None
    function: Callable[..., Any] | None = None
    metric: str | None = None
    pattern: re.Pattern[str] | None = None

    @property
    def name(self) -> str:
        """What it is called: the metric's name, the pattern that finds it, or the expression."""
        return self.metric or (self.pattern.pattern if self.pattern else self.text)

    @property
    def is_plain(self) -> bool:
        """Whether its name says what it is, and it is no calculation with it, such as one minus an accuracy."""
        if self.metric or self.pattern or self.code is None:
            return True
        return isinstance(ast.parse(self.text, mode="eval").body, ast.Call | ast.Name | ast.Attribute | ast.Subscript)

    def __call__(self, names: Mapping[str, Any], printed: Callable[[], str]) -> float:
        """The metric now.

        Args:
            names: The variables of the training.
            printed: What was printed since the measurement began.

        Raises:
            SearchError: It fails, or is no number.
        """
        try:
            if self.code is not None:
                # One mapping: names within comprehensions and lambdas are looked up among globals alone.
                found = eval(self.code, dict(names))
            else:
                assert self.function is not None
                given, own = self._arguments(names)
                found = self.function(*given, **own)
        except SearchError as error:
            raise SearchError(f"{self.text} fails: {error}.") from error
        except Exception as error:
            if is_out_of_memory(error):  # which need not happen where less else is in memory
                raise
            raise SearchError(f"{self.text} fails: {self._describe_error(error, names)}.") from error
        return self._number(found, printed)

    def _describe_error(self, error: Exception, names: Mapping[str, Any]) -> str:
        text = f"{type(error).__name__}: {first_line(error)}".removesuffix(".")
        if isinstance(error, NameError) and self.code is not None and error.name in self.code.co_names:
            text += _instead(error.name, _known_names(names))
        return text

    def _arguments(self, names: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The variables that the function asks for: those that have no name in a call, and the others."""
        assert self.function is not None
        asked = inspect.signature(self.function).parameters.values()
        needed = [each for each in asked if each.default is each.empty and each.kind not in VARIADIC]
        if missing := [each.name for each in needed if each.name not in names]:
            known = _known_names(names)
            raise SearchError(
                f"it has the argument {missing[0]}, but the training has no variable of this"
                f" name{_instead(missing[0], known)}"
            )
        given = [names[each.name] for each in needed if each.kind is each.POSITIONAL_ONLY]
        return given, {each.name: names[each.name] for each in needed if each.kind is not each.POSITIONAL_ONLY}

    def _number(self, found: object, printed: Callable[[], str]) -> float:
        if isinstance(found, Mapping) and self.metric is not None:
            names = list(map(str, found))
            values = [each for name, each in zip(names, found.values(), strict=True) if same_name(name, self.metric)]
            if self.metric not in found and len(values) != 1:
                close = meant(self.metric, names)
                raise SearchError(f"{self.text} has no {self.metric}{close}; it has {', '.join(names)}.")
            found = found.get(self.metric, *values[:1])
        if found is None:
            return self._parse_printed(printed())
        value = number(found)
        if value is None:
            hint = "; name one of its entries as the metric" if isinstance(found, Mapping) else ""
            raise SearchError(f"{self.text} is {format_value(found)}, but must be a number{hint}.")
        return value

    def _parse_printed(self, text: str) -> float:
        pattern = self.pattern or metric_pattern(self.metric)
        by_name = self.metric if self.pattern is None else None
        if by_name:
            lines = (find_values(by_name, pattern, line) for line in reversed(text.splitlines()))
            values = next((each for each in lines if each), [])
        else:
            values = numbers_of(pattern.finditer(text))
        if not values:
            said = format_value(text.strip().splitlines()[-1]) if text.strip() else "nothing"
            raise SearchError(
                f"{self.text} returns nothing, and the metric is not in what it prints: {said}. Name the metric, or"
                " give a pattern for it."
            )
        if by_name and differ(values):
            raise SearchError(
                f"{self.text} prints several values of {by_name} on one line: {join_values(values)}. Give"
                " --metric-pattern for the one that counts."
            )
        return values[-1]


def make_validation(
    value: str | Callable[..., Any], *, metric: str | None = None, pattern: str | None = None
) -> Validation:
    """The metric of a suspended training.

    Args:
        value: An expression over the variables of the training, such as ``estimate_loss()["val"]``, or a function
            whose arguments have their names.
        metric: Of a dictionary that it returns, or of what it prints where it returns nothing, the name of the metric.
        pattern: A regular expression whose first group is the metric in what it prints.

    Raises:
        SpecError: The expression or the pattern cannot be used.
    """
    found = None if pattern is None else compile_pattern(pattern)
    if callable(value):
        return Validation(text=getattr(value, "__name__", "value"), function=value, metric=metric, pattern=found)
    try:
        code = compile(value.strip(), "value", "eval", dont_inherit=True)
    except SyntaxError as error:
        raise SpecError(f"The value {value!r} is not a Python expression, such as evaluate(m): {error.msg}.") from error
    return Validation(text=value.strip(), code=code, metric=metric, pattern=found)


def _instead(name: str, known: Sequence[str]) -> str:
    """What may have been meant by a name, and the variables that there are."""
    return f"{meant(name, known)}; it has {', '.join(known[:_NAMES])}{' …' * (len(known) > _NAMES)}"


def _known_names(names: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in names if not name.startswith("_"))
