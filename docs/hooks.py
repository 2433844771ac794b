"""Pages that the build of the site generates from the code."""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from operator import itemgetter
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer.main
from annotated_types import Ge, Gt, Le, Lt
from markdown.extensions.toc import slugify
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic.fields import FieldInfo

from lratlas.cli.app import app
from lratlas.config.rules import RULES
from lratlas.config.sections import PretrainSpec, Spec
from lratlas.config.values import OWN, Section
from lratlas.thresholds import Thresholds

EXAMPLES = Path(__file__).parents[1] / "examples"
_FIELDS = Path(__file__).with_name("reference") / "spec.toml"  # an example of every field

# What a search lists first: the three verbs, other pages, results, then the reference and the files of examples.
_BOOSTS = {"find.md": 4, "explore.md": 4, "watch.md": 4, "results/": 0.5, "reference/": 0.3, "examples.md": 0.2}
_COMMAND_LINE = """# The command line

The output of `lratlas COMMAND --help`. `--json` prints numbers for scripts. Bad input ends with a message and exit code
2, Ctrl-C with 130, `SIGTERM` with 143; computed results are never lost.
"""
_SPEC = """# The spec

A study is a TOML file with a `name` and the sections below; `[task]` and `[pretrain]` are required. The sections
are also arguments of `lratlas.explore`. If a field is misspelt or out of range, the message names it and the allowed
values.
"""
_RANGES = "LRs are a list, `lrs = [1e-3, 1e-2]`, or a range, `lrs = { low = 1e-4, high = 1.0, per_decade = 4 }`.\n"
_REGIMES = "The numbers behind regimes and boundaries, [explained here](../regimes.md#thresholds).\n"
_EXAMPLES = """# Examples

The files of `examples/`. The tests run each of them, with fewer steps. See [the list](integrations.md#examples).
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, write in PAGES.items():
        files.append(File.generated(config, path, content=write()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Point links to examples to their page, rank the page in searches, and give the home page room."""
    boost = next((boost for start, boost in _BOOSTS.items() if page.file.src_uri.startswith(start)), 1)
    page.meta["search"] = {"boost": boost}
    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["navigation", "toc"]
    return re.sub(r"\]\(\.\./examples/([\w.]+)\)", lambda link: f"](examples.md#{slugify(link[1], '-')})", markdown)


def examples() -> str:
    """The page that shows all files of examples."""
    files = sorted(path for path in EXAMPLES.iterdir() if path.suffix in {".py", ".sh", ".toml"})
    return "\n".join(
        [
            _EXAMPLES,
            *(f"## {path.name}\n\n```{path.suffix[1:]}\n{path.read_text()}```\n" for path in files),
        ]
    )


def command_line() -> str:
    """The reference of the command line, from the help of every command."""
    group: Any = typer.main.get_command(app)
    commands = sorted(_commands("lratlas", group.commands), key=itemgetter(0))
    return "\n".join([_COMMAND_LINE, *(_command(*each) for each in commands)])


def spec_reference() -> str:
    """The reference of a spec: every field of every section."""
    examples = examples_of_fields()
    sections = {name: _section(field) for name, field in Spec.model_fields.items()}
    lines = [_SPEC]
    for name, section in sections.items():
        if section:
            title = _sentence(Spec.model_fields[name].description)
            lines += [f"## [{name}]\n", f"{title}\n", _fields(section, examples[name])]
        if name == "task":
            lines.append("### rule\n")
            for kind, rule in RULES.items():
                shown = "module:function" if kind == OWN else kind
                lines += [f'`name = "{shown}"`: {_sentence(rule.__doc__)}\n', _fields(rule, examples["rule"][kind])]
        if name == "pretrain":
            lines.append(_RANGES)
    numbers = [(f"`{each.name}`", "number, 0 to 1", _shown(each.default)) for each in fields(Thresholds)]
    return "\n".join([*lines, "## [regimes]\n", _REGIMES, _table(("field", "type", "default"), numbers)])


def examples_of_fields() -> dict[str, dict[str, Any]]:
    """An example of every field of every section, and of every rule under ``rule``."""
    return tomllib.loads(_FIELDS.read_text(encoding="utf-8"))


PAGES: Mapping[str, Callable[[], str]] = {
    "examples.md": examples,
    "reference/command-line.md": command_line,
    "reference/spec.md": spec_reference,
}


def _commands(path: str, commands: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """All commands, with the names of their groups."""
    for name, command in commands.items():
        if hasattr(command, "commands"):
            yield from _commands(f"{path} {name}", command.commands)
        else:
            yield f"{path} {name}", command


def _command(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    usage = [each.metavar if each.required else f"[{each.metavar}]" for each in arguments]
    rows = [(f"`{_words(each)}`", each.help or "", _if_left_out(each)) for each in command.params]
    table = _table(("argument or option", "meaning", "default"), rows)
    # The epilogue is a line and a list.
    head, *listed = (command.epilog or "").split("\n\n")
    below = [head, *(f"- {each}" for each in listed)]
    return "\n\n".join([f"## {name}", command.help, f"`{' '.join([name, *usage])}`", table, *below])


def _words(parameter: Any) -> str:
    """An argument's name, or an option's names and its value."""
    if parameter.param_type_name == "argument":
        return parameter.metavar
    return ", ".join(parameter.opts) + ("" if parameter.is_flag else f" {parameter.metavar}")


def _if_left_out(parameter: Any) -> str:
    if parameter.required:
        return "required"
    return "" if parameter.default in {None, False} else f"`{parameter.default}`"


def _section(field: FieldInfo) -> type[Section] | None:
    """The section that a field of a spec holds, if it is one."""
    held: list[Any] = [field.annotation, *get_args(field.annotation)]
    return next((each for each in held if isinstance(each, type) and issubclass(each, Section)), None)


def _fields(section: type[Section], examples: Mapping[str, Any]) -> str:
    rows = [
        (f"`{name}`", field.description or "", _type_of(field), _default_of(field), f"`{toml(examples[name])}`")
        for name, field in section.model_fields.items()
    ]
    return _table(("field", "meaning", "type", "default", "example"), rows)


def _type_of(field: FieldInfo) -> str:
    """The type of a field and its limits, in words."""
    if any(getattr(each, "func", None) is _LRS for each in field.metadata):
        return "list of numbers, or a range"
    least = [f"≥ {each.ge:g}" for each in field.metadata if isinstance(each, Ge)]
    least += [f"> {each.gt:g}" for each in field.metadata if isinstance(each, Gt)]
    most = [f"≤ {each.le:,}" for each in field.metadata if isinstance(each, Le)]
    most += [f"< {each.lt:g}" for each in field.metadata if isinstance(each, Lt)]
    return ", ".join([_words_of(field.annotation), *least, *most])


_LRS = next(each.func for each in PretrainSpec.model_fields["lrs"].metadata if hasattr(each, "func"))
_WORDS: Mapping[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text", dict: "table"}
_MANY = {"whole number": "whole numbers", "number": "numbers", "text": "texts"}


def _words_of(kind: Any) -> str:
    """A type in words; what may be left out counts as what may be there."""
    origin, inner = get_origin(kind), [each for each in get_args(kind) if each not in {type(None), ...}]
    if origin is Annotated:
        return _words_of(inner[0])
    if origin is Literal:
        return ", ".join(f'`"{each}"`' for each in inner)
    if origin is tuple:
        words = _words_of(inner[0])
        return f"list of {_MANY.get(words, 'lists')}" if Ellipsis in get_args(kind) else f"{len(inner)} {_MANY[words]}"
    if origin in {Union, UnionType}:
        return " or ".join(dict.fromkeys(map(_words_of, inner)))
    return "table" if origin is dict or issubclass(kind, Section) else _WORDS[kind]


def toml(value: object) -> str:
    """A value as TOML writes it, small numbers as 1e-3."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {toml(each)}" for name, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, float) and 0 < value < 0.01:
        digits, power = f"{value:e}".split("e")
        short = f"{float(digits):g}e{int(power)}"
        return short if float(short) == value else repr(value)
    return json.dumps(value)


def _default_of(field: FieldInfo) -> str:
    return "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))


def _shown(value: object) -> str:
    """A default as TOML writes it; nothing for no default."""
    return "" if value in (None, {}) else f"`{toml(value)}`"


def _sentence(text: str | None) -> str:
    text = (text or "").strip().removesuffix(".")
    return f"{text[:1].upper()}{text[1:]}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    escaped = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
    return "\n".join(f"| {line} |" for line in escaped) + "\n"
