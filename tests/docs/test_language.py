"""Pages and messages are plain technical English: none of the words that this project once had for itself."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat
import pytest

from docs.pages import DOCS, ROOT

# Words that never fit, to those that do.
WORDS: Mapping[str, str] = {
    r"\banew\b": "again, from scratch, regenerate",
    r"\bconduct(s|ed|ing)?\b": "run",
    r"\bso many\b": "that many, N",
    r"\bof (its|your|their|his|her|our|my) own\b": "its, custom, separate",
    r"\bmade[- ]up\b": "toy, synthetic, example",
    r"\bwhat (came|comes|has come) of\b": "the result, the outcome",
    r"\b(go|goes|went|going) on\b": "continue, resume",
    r"\bcrews?\b": "executor, workers",
    r"\bsittings?\b": "session",
    r"\bpremises\b": "preflight",
    r"\bbench\b": "trainer",
    r"\bupright\b": "vertical",
    r"\bbeside\b": "next to, together with",
    r"\btold\b": "reported, recorded, distinguished",
    r"\b(does|do|would|cannot|can) (not )?tell\b(?! the| a|\()": "is inconclusive, should be enough",
    r"\bcoin's\b": "a coin flip",
    r"\bin the place of\b": "instead of",
    r"\bgiven up before any was done\b": "failed",
    r"\d %": "95%, without a space",
    r"\bby a hair\b": "narrowly",
    r"\b(was|were) begun\b": "began",
    r"\bthe very same\b": "identical",
    r"\bdoes not suffice\b": "ran out of, is not enough",
    r"\bspeaks? of\b": "names, says",
    r"\btoo seldom\b": "only every N",
    r"\bon validation data alone\b": "only looks at validation data",
    r"\bmust (lie|stand|rest)\b": "must be",
    r"\b(is|are|was|were) kept\b": "is stored, is saved",
    r"\bper cent\b": "percent",
    r"\beither way\b": "±",
    r"(?<!there )\bis no (?!longer\b|more\b|lower\b)": "is not a",
}
# Texts that stay, to the reason.
EXCEPTIONS: Mapping[str, str] = {
    "`sittings/`": "a folder of the study, with a stored name",
    "the folder sittings": "the stored name of this folder",
}
# Other pages of the repository, and folders of code
PAGES: tuple[str, ...] = (
    ".github/pull_request_template.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "src/lratlas/report/fonts/README.md",
)
SOURCES = ("benchmarks", "examples", "src/lratlas")


def faults(text: str) -> list[str]:
    """The lines of a text with such a word, and what to write instead."""
    for each in EXCEPTIONS:
        text = text.replace(each, "")
    # A phrase may go over the end of a line.
    plain = re.sub(r"\s+", " ", text)
    return [
        f"…{plain[max(0, found.start() - 40) : found.end() + 40]}… {found[0]!r}: {better}"
        for word, better in WORDS.items()
        for found in re.finditer(word, plain, re.IGNORECASE)
    ]


def written(path: Path) -> str:
    """A page, or the cells of a notebook; their outputs are whatever the code prints."""
    if path.suffix == ".ipynb":
        return "\n\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    return path.read_text(encoding="utf-8")


def sentences(source: str) -> Iterator[str]:
    """Docstrings, messages, help and comments of a module: its comments, and its strings of several words."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    inside = set[ast.AST]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            inside |= {*ast.walk(node)}
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "7"  # any value stands for a number
                for part in node.values
            )
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside and " " in node.value
        ):
            yield node.value


ALL_PAGES = [*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb"), *(ROOT / page for page in PAGES)]


@pytest.mark.parametrize("page", sorted(ALL_PAGES), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_plain(page: Path) -> None:
    assert faults(written(page)) == []


@pytest.mark.parametrize("folder", SOURCES)
def test_a_folder_of_code_is_plain(folder: str) -> None:
    assert [
        f"{path.name}: {fault}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for each in sentences(path.read_text(encoding="utf-8"))
        for fault in faults(each)
    ] == []


def test_every_exception_is_needed() -> None:
    texts = [written(page) for page in ALL_PAGES]
    for each, reason in EXCEPTIONS.items():
        assert any(each in text for text in texts), reason


@pytest.mark.parametrize(
    "text",
    [
        "Written anew.",
        "It goes\non.",
        "a schedule of its own",
        "An interval of 95 %.",
        "3 seeds do not tell; about 4 would.",
        "What came of it.",
        "It is no file.",
    ],
)
def test_a_word_is_found(text: str) -> None:
    assert len(faults(text)) == 1


@pytest.mark.parametrize(
    "text", ["in 95% of the studies", "there is no plan", "and so on", "finder.tell(segment)", "see `sittings/`"]
)
def test_other_words_are_not(text: str) -> None:
    assert faults(text) == []


def test_comments_docstrings_and_messages_are_read() -> None:
    source = '"""Made anew."""\nraise ValueError(f"has {share} %")  # goes on\n'
    assert [bool(faults(each)) for each in sentences(source)] == [True, True, True]
