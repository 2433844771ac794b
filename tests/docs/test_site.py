"""The site is built without a warning, is whole, and asks no other server for anything."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from docs.pages import DOCS, ROOT
from lratlas.cli.app import app
from lratlas.config.sections import Spec


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors, and with a pandoc that only knows its version."""
    folder, programs = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("programs")
    pandoc = programs / "pandoc"
    pandoc.write_text(f'#!/bin/sh\necho "pandoc 3.1"\ntest "$*" = --version || echo "$*" >> {programs}/asked.txt\n')
    pandoc.chmod(0o755)
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(
        words,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    # With the real one every page took seconds.
    assert not (programs / "asked.txt").exists()
    return folder


def test_every_page_is_there_and_asks_no_other_server(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    for page in [*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")]:
        path = page.relative_to(DOCS).with_suffix(".html")
        assert site / (path.with_name("index.html") if path.name == "README.html" else path) in pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]+src=[\"']?(https?:[^\"'\s>]+)", text)
        loaded += re.findall(
            r"<link[^>]+rel=[\"']?(?:stylesheet|preconnect|icon)[^>]+href=[\"']?(https?:[^\"'\s>]+)", text
        )
        assert not loaded, page
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"url\([\"']?https?:|@import [\"']?https?:", styles)


def test_the_reference_has_every_option_of_the_command_line(site: Path) -> None:
    text = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    group: Any = typer.main.get_command(app)
    waiting = [("lratlas", group)]
    found = 0
    while waiting:
        path, command = waiting.pop()
        if hasattr(command, "commands"):
            waiting += [(f"{path} {name}", each) for name, each in command.commands.items()]
            continue
        found += 1
        section = text.partition(f'<h2 id="{path.replace(" ", "-")}">')[2].partition("<h2")[0]
        for parameter in command.params:
            words = parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]
            assert all(word in section for word in words), f"{path} {words}"
    assert found > 10


def test_the_reference_has_every_section_of_a_spec_and_every_public_name(site: Path) -> None:
    import lratlas

    spec = (site / "reference" / "spec.html").read_text(encoding="utf-8")
    assert all(f">[{name}]<" in spec for name in Spec.model_fields if name != "name")
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert all(f'id="lratlas.{name}"' in python for name in lratlas.__all__)
