"""Pages of the site that are written from the code whenever it is built, so that they say what the code says."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from operator import itemgetter
from pathlib import Path
from typing import Any, get_args

import typer.main
from markdown.extensions.toc import slugify
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic.fields import FieldInfo

from lratlas.cli.app import app
from lratlas.config.rules import RULES
from lratlas.config.sections import Spec
from lratlas.config.values import OWN, Section
from lratlas.thresholds import Thresholds

EXAMPLES = Path(__file__).parents[1] / "examples"

_COMMAND_LINE = """# The command line

What `lratlas COMMAND --help` tells. `--json` prints numbers for scripts. Bad input ends with one sentence and exit code
2, Ctrl-C with 130, `SIGTERM` with 143; nothing that was computed is lost.
"""
_SPEC = """# The spec

A study is described by a TOML file: `name`, and the sections below, of which `[task]` and `[pretrain]` are needed. The
same names are arguments of `lratlas.explore`. A field that is misspelt or out of range is refused by its name, with
what is allowed.
"""
_RANGES = "LRs are a list, `lrs = [1e-3, 1e-2]`, or a range, `lrs = { low = 1e-4, high = 1.0, per_decade = 4 }`.\n"
_REGIMES = "The numbers behind regimes and boundaries, all between 0 and 1; [what each of them means](../regimes.md).\n"
_EXAMPLES = """# Examples

The files of `examples/`, each run by the tests as it stands here, but for fewer steps.
[What each shows](integrations.md#examples).
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the written pages to those of the folder."""
    for path, write in PAGES.items():
        files.append(File.generated(config, path, content=write()))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Let links to the files of examples lead to the page that shows them."""
    return re.sub(r"\]\(\.\./examples/([\w.]+)\)", lambda link: f"](examples.md#{slugify(link[1], '-')})", markdown)


def examples() -> str:
    """The page that shows all files of examples."""
    files = sorted(path for path in EXAMPLES.iterdir() if path.suffix in {".py", ".sh", ".toml"})
    return "\n".join(
        [_EXAMPLES, *(f"## {path.name}\n\n```{path.suffix[1:]}\n{path.read_text()}```\n" for path in files)]
    )


def command_line() -> str:
    """The reference of the command line: what ``--help`` tells of every command."""
    group: Any = typer.main.get_command(app)
    commands = sorted(_commands("lratlas", group.commands), key=itemgetter(0))
    return "\n".join([_COMMAND_LINE, *(_command(*each) for each in commands)])


def spec_reference() -> str:
    """The reference of a spec: every field of every section."""
    sections = {name: _section(field) for name, field in Spec.model_fields.items()}
    lines = [_SPEC]
    for name, section in sections.items():
        if section:
            lines += [f"## [{name}]\n", f"{_sentence(Spec.model_fields[name].description)}\n", _fields(section)]
        if name == "task":
            lines.append("### rule\n")
            for kind, rule in RULES.items():
                shown = "module:function" if kind == OWN else kind
                lines += [f'`name = "{shown}"`: {_sentence(rule.__doc__)}\n', _fields(rule)]
        if name == "pretrain":
            lines.append(_RANGES)
    numbers = [(f"`{each.name}`", _shown(each.default)) for each in fields(Thresholds)]
    return "\n".join([*lines, "## [regimes]\n", _REGIMES, _table(("field", "default"), numbers)])


PAGES: Mapping[str, Callable[[], str]] = {
    "examples.md": examples,
    "reference/command-line.md": command_line,
    "reference/spec.md": spec_reference,
}


def _commands(path: str, commands: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """All commands, those of groups under the names that are typed."""
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
    # What stands below the help: a line, and a list.
    head, *listed = (command.epilog or "").split("\n\n")
    below = [head, *(f"- {each}" for each in listed)]
    return "\n\n".join([f"## {name}", command.help, f"`{' '.join([name, *usage])}`", table, *below])


def _words(parameter: Any) -> str:
    """An argument's name, or an option's names and what stands behind them."""
    if parameter.param_type_name == "argument":
        return parameter.metavar
    return ", ".join(parameter.opts) + ("" if parameter.is_flag else f" {parameter.metavar}")


def _if_left_out(parameter: Any) -> str:
    if parameter.required:
        return "needed"
    return "" if parameter.default in {None, False} else f"`{parameter.default}`"


def _section(field: FieldInfo) -> type[Section] | None:
    """The section that a field of a spec holds, if it is one."""
    held: list[Any] = [field.annotation, *get_args(field.annotation)]
    return next((each for each in held if isinstance(each, type) and issubclass(each, Section)), None)


def _fields(section: type[Section]) -> str:
    rows = [(f"`{name}`", field.description or "", _default_of(field)) for name, field in section.model_fields.items()]
    return _table(("field", "meaning", "default"), rows)


def _default_of(field: FieldInfo) -> str:
    return "needed" if field.is_required() else _shown(field.get_default(call_default_factory=True))


def _shown(value: object) -> str:
    """A default as TOML writes it; nothing for what is left out."""
    return "" if value in (None, {}) else f"`{json.dumps(value)}`"


def _sentence(text: str | None) -> str:
    text = (text or "").strip().removesuffix(".")
    return f"{text[:1].upper()}{text[1:]}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    escaped = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
    return "\n".join(f"| {line} |" for line in escaped) + "\n"
