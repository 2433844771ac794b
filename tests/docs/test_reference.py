"""The generated pages of the reference: an example of every field, and its type in words."""

import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from docs.pages import DOCS, table
from lratlas.config.rules import RULES
from lratlas.config.sections import Spec
from lratlas.config.values import Section

_found = spec_from_file_location("site_hooks", DOCS / "hooks.py")
assert _found
assert _found.loader
hooks = module_from_spec(_found)
sys.modules["site_hooks"] = hooks
_found.loader.exec_module(hooks)

EXAMPLES = tomllib.loads((DOCS / "reference" / "spec.toml").read_text(encoding="utf-8"))
PAGE: str = hooks.spec_reference()


def section_of(field: FieldInfo) -> type[Section] | None:
    kinds: tuple[Any, ...] = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


SECTIONS = {name: section for name, field in Spec.model_fields.items() if (section := section_of(field))}


def test_every_section_has_examples() -> None:
    assert EXAMPLES.keys() == SECTIONS.keys() | {"rule"}
    assert EXAMPLES["rule"].keys() == RULES.keys()


@pytest.mark.parametrize("name", SECTIONS)
def test_every_field_has_a_valid_example(name: str) -> None:
    fields, examples = SECTIONS[name].model_fields, EXAMPLES[name]
    assert examples.keys() == fields.keys()
    for field, value in examples.items():
        # By itself, because some fields exclude each other.
        TypeAdapter(fields[field].rebuild_annotation()).validate_python(value)
        assert value != fields[field].get_default(call_default_factory=True)


@pytest.mark.parametrize("kind", RULES)
def test_every_rule_has_a_valid_example(kind: str) -> None:
    assert RULES[kind].model_validate(EXAMPLES["rule"][kind]).model_fields_set == RULES[kind].model_fields.keys()


def test_the_page_has_the_types_and_limits_of_fields() -> None:
    section = PAGE.partition("## [refine]")[2]
    assert table(section, "field")["ratio"][1:] == ["number, ≥ 1.001, ≤ 100", "required", "`1.1`"]
    section = PAGE.partition("## [second]")[2]
    assert table(section, "field")["lrs"][1] == "list of numbers, or a range"
    section = PAGE.partition("## [measure]")[2]
    assert table(section, "field")["norms"][1:] == ["true or false", "`false`", "`true`"]


VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("aZ .:", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1, max_size=3), inner),
    max_leaves=5,
)


@given(VALUES)
def test_a_value_is_read_as_it_was_written(value: object) -> None:
    found = tomllib.loads(f"value = {hooks.toml(value)}")["value"]
    assert found == value
    assert type(found) is type(value)
