"""The types of sections have the fields that specs have."""

from inspect import signature
from typing import get_type_hints

import pytest
from pydantic import BaseModel

from lratlas.api.explore import explore
from lratlas.config import typed
from lratlas.config.sections import Spec
from lratlas.measure.base import Measurement

TYPES = {
    "pretrain": typed.Pretrain,
    "second": typed.Second,
    "finetune": typed.Stage,
    "average": typed.Average,
    "refine": typed.Refine,
    "trace": typed.Trace,
    "measure": typed.Measure,
    "training": typed.Training,
}


def model_of(section: str) -> type[BaseModel]:
    """The class that checks a section."""
    hint = get_type_hints(Spec)[section]
    (found,) = (
        each
        for each in (hint, *getattr(hint, "__args__", ()))
        if isinstance(each, type) and issubclass(each, BaseModel)
    )
    return found


def test_there_is_a_type_for_each_section_besides_the_task() -> None:
    given = set(signature(explore).parameters)
    assert given >= Spec.model_fields.keys()
    assert TYPES.keys() == Spec.model_fields.keys() - {"task", "name", "regimes"}
    assert all(f"        {section}: " in str(explore.__doc__) for section in TYPES)


@pytest.mark.parametrize("section", TYPES)
def test_a_type_has_the_fields_of_its_section(section: str) -> None:
    hints = get_type_hints(TYPES[section], localns={"Measurement": Measurement})
    assert hints.keys() == model_of(section).model_fields.keys()
