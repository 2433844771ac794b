"""The blocks of code of every page of the site are run, as they stand there but for less training."""

import ast
import re
import shutil
import signal
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import lratlas
from cheaper import unpaged, without_a_process, workerless
from docs.pages import CODE, DOCS, ROOT, Block, blocks_of, commands, parsed, text_of
from docs.settings import SETTINGS, Setting
from docs.shell import run_shell
from lratlas.config.presets import preset
from lratlas.config.spec import read_spec, spec_from
from lratlas.search.program.output import OutputParser

WRITTEN = sorted(str(path.relative_to(ROOT)) for path in DOCS.rglob("*.md"))
WITH_CODE = [page for page in WRITTEN if any(block.language in CODE for block in blocks_of(text_of(page)))]
# What a block of a spec leaves out.
SECTIONS: dict[str, Any] = {
    "task": {"preset": "digits"},
    "pretrain": {"lrs": [1e-3, 1e-2], "steps": 100},
}


@pytest.fixture(scope="module", autouse=True)
def cheaper() -> Iterator[None]:
    """No page shows figures for papers or what is on the page of a search, and none asks for more than one process."""
    with workerless(), unpaged(), without_a_process():
        yield


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who has followed the pages so far: a module, a spec, and a finished study."""
    folder = tmp_path_factory.mktemp("reader")
    (own,) = (block.text for block in blocks_of(text_of("docs/own-model.md")) if block.title == "my_module.py")
    (folder / "my_module.py").write_text(own)
    (spec,) = (block.text for block in blocks_of(text_of("docs/explore.md")) if block.language == "toml")
    (folder / "study.toml").write_text(
        shortened(
            spec,
            {
                "{ low = 1e-4, high = 1.0, per_decade = 4 }": "[0.01, 0.1]",
                "epochs = 50\nrepeats = 3": "epochs = 12",
                "epochs = 20": "epochs = 1",
                "counts = [2, 5, 10]": "counts = [2]\n[measure]\ninterpolation = 3\n[training]\ncompile = false",
            },
        )
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.syspath_prepend(folder)
        lratlas.explore("study.toml", folder="my-study")
    for copy in ("another-study", "lratlas-demo/ticks", "lratlas-demo/digits"):
        shutil.copytree(folder / "my-study", folder / copy)
    return folder


@pytest.fixture
def folder(reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of that folder to be in."""
    copy = Path(shutil.copytree(reader, tmp_path / "reader"))
    monkeypatch.chdir(copy)
    monkeypatch.syspath_prepend(copy)
    handler = signal.getsignal(signal.SIGTERM)
    yield copy
    signal.signal(signal.SIGTERM, handler)
    sys.modules.pop("my_module", None)


def shortened(text: str, short: dict[str, str]) -> str:
    for old, new in short.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.mark.filterwarnings("ignore")  # of libraries that the blocks use
@pytest.mark.parametrize("page", WITH_CODE)
def test_the_blocks_of_a_page_run(page: str, folder: Path, tmp_path: Path) -> None:
    setting = SETTINGS[page]
    for name, text in setting.files.items():
        (folder / name).write_text(text)
    names: dict[str, object] = {"__name__": "page"}
    exec(setting.before, names)
    # The demonstration is its two studies; here they are there already, and small.
    demo = {name: read_spec("study.toml") for name in ("ticks", "digits")}
    unused = set(setting.short)
    with patch("lratlas.config.presets.demo_presets", lambda: demo):
        for block in blocks_of(text_of(page)):
            used = {old for old in setting.short if old in block.text}
            unused -= used
            text = shortened(block.text, {old: setting.short[old] for old in setting.short if old in used})
            run_block(block, text, setting, names, tmp_path)
    assert not unused, unused


def run_block(block: Block, text: str, setting: Setting, names: dict[str, object], scratch: Path) -> None:
    """Run a block, or, where the setting leaves it out, look whether its commands and imports are there."""
    if any(text.startswith(start) for start in setting.left_out):
        check_left_out(block.language, text)
    elif block.title:
        Path(block.title).write_text(text, encoding="utf-8")
    elif block.language == "python":
        exec(compile(text, "page", "exec"), names)
    elif block.language == "sh":
        run_shell(text, Path.cwd(), scratch)
    if block.language == "toml":
        spec_from(SECTIONS | tomllib.loads(text))
    if block.language == "json":
        told = OutputParser("value")
        for line in text.splitlines():
            told.take(line.encode())
        assert told.value is not None
        assert told.losses


def check_left_out(language: str, text: str) -> None:
    if language == "python":
        imports: list[ast.stmt] = [
            each for each in ast.parse(text).body if isinstance(each, (ast.Import, ast.ImportFrom))
        ]
        exec(compile(ast.Module(body=imports, type_ignores=[]), "imports", "exec"), {})
        return
    assert language == "sh"
    for line in commands(text):
        name, asked = parsed(line)
        if name == "reproduce":
            sizes = ("repeats", "scale", "width", "images", "test_images", "epochs", "finetune_epochs")
            assert preset(asked["preset"], **{size: asked[size] for size in sizes}).pretrain.lrs
    for script in re.findall(r"python (benchmarks/\S+\.py)", text):
        assert (ROOT / script).is_file()
    for module in re.findall(r"python -m (benchmarks\S+)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def test_every_page_with_code_has_a_setting_and_no_other() -> None:
    assert SETTINGS.keys() == set(WITH_CODE)


def test_every_block_says_its_language() -> None:
    said = {(page, block.language) for page in WRITTEN for block in blocks_of(text_of(page))}
    assert {language for _, language in said} <= CODE | {"bibtex", "text"}
    assert not [page for page in WRITTEN if re.search(r"\n\n {4}(lratlas|python|pip) ", text_of(page))]
