"""Validation metric of a suspended training: an expression, a function, or output printed during it."""

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
"""Kinds of ``*arguments`` and ``**arguments``."""
_NAMES = 12  # of variables, at most, in a message


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Definition of the metric of a suspended training.

    Attributes:
        text: The expression or the function's name, for messages.
        code: Compiled expression over the variables of the training.
        function: Function whose arguments are variables of the training, by name.
        metric: Name of the metric in a dictionary, or in printed text.
        pattern: Finds the metric in printed text, as its first group.
    """

    text: str
    code: CodeType | None = None
    function: Callable[..., Any] | None = None
    metric: str | None = None
    pattern: re.Pattern[str] | None = None

    @property
    def name(self) -> str:
        """Name for messages: the metric's name, the pattern that finds it, or the expression."""
        return self.metric or (self.pattern.pattern if self.pattern else self.text)

    @property
    def is_plain(self) -> bool:
        """Whether the name is that of the metric, and not a calculation such as one minus an accuracy."""
        if self.metric or self.pattern or self.code is None:
            return True
        return isinstance(ast.parse(self.text, mode="eval").body, ast.Call | ast.Name | ast.Attribute | ast.Subscript)

    def __call__(self, names: Mapping[str, Any], printed: Callable[[], str]) -> float:
        """Measure the metric.

        Args:
            names: Variables of the training.
            printed: Returns the text printed since the measurement began.

        Raises:
            SearchError: The measurement fails, or its result is not a number.
        """
        try:
            if self.code is not None:
                # One mapping: comprehensions and lambdas only look up global names.
                found = eval(self.code, dict(names))
            else:
                assert self.function is not None
                given, own = self._arguments(names)
                found = self.function(*given, **own)
        except SearchError as error:
            raise SearchError(f"{self.text} fails: {error}.") from error
        except Exception as error:
            if is_out_of_memory(error):  # may not happen with less in memory
                raise
            raise SearchError(f"{self.text} fails: {self._describe_error(error, names)}.") from error
        return self._number(found, printed)

    def _describe_error(self, error: Exception, names: Mapping[str, Any]) -> str:
        text = f"{type(error).__name__}: {first_line(error)}".removesuffix(".")
        if isinstance(error, NameError) and self.code is not None and error.name in self.code.co_names:
            text += _instead(error.name, _known_names(names))
        return text

    def _arguments(self, names: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Variables for the function's arguments: positional-only ones, and the others."""
        assert self.function is not None
        asked = inspect.signature(self.function).parameters.values()
        needed = [each for each in asked if each.default is each.empty and each.kind not in VARIADIC]
        if missing := [each.name for each in needed if each.name not in names]:
            known = _known_names(names)
            raise SearchError(
                f"it takes {missing[0]}, but the training has no variable with this name{_instead(missing[0], known)}"
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
            hint = "; set the metric to one of its entries" if isinstance(found, Mapping) else ""
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
                f"{self.text} returns nothing, and its output does not show the metric: {said}. Set metric to"
                " its name, or use --metric-pattern."
            )
        if by_name and differ(values):
            raise SearchError(
                f"{self.text} prints several values of {by_name} on one line: {join_values(values)}. Select one"
                " with --metric-pattern."
            )
        return values[-1]


def make_validation(
    value: str | Callable[..., Any], *, metric: str | None = None, pattern: str | None = None
) -> Validation:
    """Make the metric of a suspended training.

    Args:
        value: Expression over the variables of the training, such as ``estimate_loss()["val"]``, or a function whose
            arguments have their names.
        metric: Name of the metric in a returned dictionary, or in printed text if nothing is returned.
        pattern: Regular expression whose first group is the metric in printed text.

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
    """Suggest a name for a mistyped one, and list the known variables."""
    return f"{meant(name, known)}; it has {', '.join(known[:_NAMES])}{' …' * (len(known) > _NAMES)}"


def _known_names(names: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in names if not name.startswith("_"))
