"""The metric of a suspended training, from an expression, a function, or what is printed."""

import io
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from lratlas.errors import SearchError
from lratlas.search.driven.outputs import Outputs
from lratlas.search.driven.validation import make_validation


def measured(value: Any, names: Mapping[str, Any], **options: Any) -> float:
    outputs = Outputs()
    with outputs.into(io.StringIO()), outputs.record() as printed:
        return make_validation(value, **options)(names, printed)


@pytest.mark.parametrize(
    ("text", "metric", "expected"),
    [
        ("acc=0.93", None, 0.93),
        ("Accuracy: 93.1%", None, 93.1),
        ("epoch 7 val_loss 0.31", "val_loss", 0.31),
        ("loss: 9.0, val_loss: 0.5", "loss", 9.0),
        ('{"epoch": 7, "val_acc": 0.5}', "val_acc", 0.5),
        ("Test set: Average loss: 0.0267, Accuracy: 9913/10000 (99%)", "accuracy", 0.9913),
        ("loss is nan", None, float("nan")),
        ("loss: -inf", None, float("-inf")),
        ("loss 1e-05", None, 1e-5),
        ("acc 0.1\nacc 0.2", None, 0.2),
        ("Val_Acc 0.8, best val acc 0.9\ntrain acc 0.7", "val acc", 0.8),
        ("val acc 0.8, train acc 0.7", "acc", 0.8),
    ],
)
def test_what_is_printed_or_logged_is_found(text: str, metric: str | None, expected: float):
    def logs() -> None:
        logging.getLogger("a.training").warning("%s", text)

    for value in (f"print({text!r})", f"__import__('sys').stderr.write({text + chr(10)!r}) and None", logs):
        assert measured(value, {}, metric=metric) == pytest.approx(expected, nan_ok=True)


def test_of_several_values_on_a_line_none_is_chosen():
    with pytest.raises(
        SearchError, match=r"several values of acc on one line: 0\.8, 0\.9\. Select one with --metric-pattern"
    ):
        measured("print('val acc 0.8, test acc 0.9')", {}, metric="acc")


def test_the_names_of_a_dictionary_are_found_however_they_are_spelled():
    assert measured("{'val/loss': 0.5, 'val_acc': 0.9}", {}, metric="Val Loss") == 0.5
    with pytest.raises(SearchError, match=r"has no val_loss \(did you mean val_los\?\); it has val_los"):
        measured("{'val_los': 0.5, 'acc': 0.9}", {}, metric="val_loss")


def test_a_pattern_says_where_the_metric_is():
    assert measured("print('top1 <0.25> top5 <0.75>')", {}, pattern=r"top5 <(.*?)>") == 0.75


def doubled(k: float) -> float:
    return 2 * k


def with_default(k: float, other: float = 5) -> float:
    return k + other


def counted(*some: object, **more: object) -> int:
    return len(some) + len(more)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("sum(a * k for a in range(3))", 6),
        ("[a + k for a in [1]][0]", 3),
        ("(lambda a: a * k)(3)", 6),
        ("max((lambda: k)(), *(k + i for i in range(2)))", 3),
        (doubled, 4),
        (with_default, 7),
        (counted, 0),
    ],
)
def test_an_expression_sees_the_variables_wherever_they_stand(value: Any, expected: float):
    assert measured(value, {"k": 2}) == expected


def test_arguments_without_a_name_in_a_call_are_given():
    def half(k: float, /) -> float:
        return k / 2

    assert measured(half, {"k": 3}) == 1.5


def test_an_error_within_the_value_is_named_without_a_guess():
    def broken() -> float:
        return missing  # noqa: F821  # pyright: ignore[reportUndefinedVariable]

    with pytest.raises(SearchError, match=r"^broken\(\) fails: NameError: name 'missing' is not defined\.$"):
        measured("broken()", {"broken": broken, "missing_": 1})


def test_memory_that_runs_out_is_no_failure_of_the_value():
    def hungry() -> float:
        raise MemoryError

    with pytest.raises(MemoryError):
        measured(hungry, {})
