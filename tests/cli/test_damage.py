import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cheaper import workerless
from cli.helpers import NAMED, Explored, Ran, assert_same_tables, contents
from lratlas.atlas import load

pytestmark = pytest.mark.usefixtures("without_figures")

# What a process can do whose files may not grow beyond a limit; the kernel's signal for it is ignored by Python. Jobs
# that failed are tried again at once.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
sys.argv = ["lratlas", *sys.argv[1:]]
from lratlas.cli.app import main
from lratlas.execute import scheduler
scheduler.PAUSES = (0.0, 0.0)
main()
"""
READING = ["status {}", "show {} runs", "report {}"]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_in_a_list(data: bytes) -> bytes:
    """A spec that ends at the end of a line may still be one."""
    return data[: data.index(b"[\n") + 1]


def alter(data: bytes) -> bytes:
    """One bit of a digit or letter in the middle is flipped."""
    at = next(index for index in range(len(data) // 2, len(data)) if chr(data[index]).isalnum())
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def empty(_: bytes) -> bytes:
    return b""


def interrupt(*_: object) -> str:
    raise KeyboardInterrupt


def noise(_: bytes) -> bytes:
    return bytes(range(256))


DAMAGES = [cut, alter, empty, noise]


def spoil(study: Path, pattern: str, damage: Callable[[bytes], bytes]) -> str:
    path = next(iter(sorted(study.glob(pattern))))
    path.write_bytes(damage(path.read_bytes()))
    return str(path.relative_to(study))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("words", READING)
@pytest.mark.parametrize("pattern", ["tables/runs/*.parquet", "plan.json"])
def test_reading_names_a_damaged_file_and_leaves_it(
    pattern: str, words: str, damage: Callable[[bytes], bytes], study: Path, refused: Callable[..., str]
):
    name = spoil(study, pattern, damage)
    before = contents(study)
    text = refused(*(word.format(study) for word in words.split()))
    assert name in text
    assert "move it to damaged/" in text or "is damaged: it is not text" in text
    assert contents(study) == before


def test_a_table_of_the_analysis_is_made_again(study: Path, run: Callable[..., Ran]):
    whole = (study / "tables/boundaries/analysis.parquet").read_bytes()
    spoil(study, "tables/boundaries/*.parquet", cut)
    assert run("resume", study, "--workers", "1").code == 0
    assert (study / "tables/boundaries/analysis.parquet").read_bytes() == whole
    assert run("verify", study).code == 0


def test_resume_sets_damaged_files_aside_and_makes_them_again(study: Path, explored: Explored, run: Callable[..., Ran]):
    spoiled = [
        spoil(study, "checkpoints/finetune-*.safetensors", cut),
        spoil(study, "plan.json", alter),
        spoil(study, "tables/pairs/*.parquet", alter),
        spoil(study, "tables/regimes/*.parquet", noise),
        spoil(study, "tables/traces/pretrain-*.parquet", cut),
    ]
    damaged = {name: (study / name).read_bytes() for name in spoiled}
    with workerless():
        ran = run("resume", study, "--workers", "1")
    assert ran.code == 0
    assert sorted(ran.err.splitlines()) == sorted(
        [NAMED, *(f"lratlas: {name} is damaged; it is moved to damaged/ and made again." for name in spoiled)]
    )
    assert {name: (study / "damaged" / name).read_bytes() for name in spoiled} == damaged
    assert_same_tables(study, explored)
    assert run("resume", study, "--workers", "1").err == f"{NAMED}\n"


def test_a_report_that_was_interrupted_is_written_again(
    study: Path, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
):
    figures = {path.name for path in (study / "figures").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr("lratlas.report.figures.figure_svg", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load(study).write_report()
    assert not (study / "report.html").exists()
    shutil.rmtree(study / "figures")
    assert run("resume", study, "--workers", "1").code == 0
    assert (study / "report.html").exists()
    assert {path.name for path in (study / "figures").iterdir()} == figures


def test_parts_that_a_new_plan_does_not_claim_are_set_aside(study: Path, explored: Explored, run: Callable[..., Ran]):
    # As in a study that had grown in steps before its plan was lost: the same runs in other stacks.
    part = next((study / "tables" / "runs").glob("finetune-*"))
    (part.parent / "finetune-0123456789abcdef.parquet").write_bytes(part.read_bytes())
    (study / "plan.json").unlink()
    assert run("resume", study, "--workers", "1").code == 0
    assert (study / "damaged" / "tables" / "runs" / "finetune-0123456789abcdef.parquet").exists()
    assert_same_tables(study, explored)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps = 100", "steps = 1000", "was altered: `pretrain.steps` is 100 in the study, but 1000"),
        ("0.1,", "", "was altered: `pretrain.lrs` holds 0.1 in the study,"),
        ("batch_size = 16", "batch_size = 8", "was altered: `task.batch_size` is 16 in the study, but 8"),
        ("steps = 100", "stteps = 100", "`pretrain.stteps` is not a field"),
        ("[pretrain]", "[pretrain", "was altered or cut short"),
        ("[task]", "\0", "was altered or cut short"),
    ],
)
def test_an_altered_spec_is_refused_and_the_study_left(
    old: str, new: str, said: str, study: Path, refused: Callable[..., str]
):
    spec = study / "spec.toml"
    assert old in spec.read_text()
    spec.write_text(spec.read_text().replace(old, new))
    before = contents(study)
    text = refused("resume", study, "--workers", "1")
    assert said in text
    assert str(study) in text
    assert contents(study) == before


@pytest.mark.parametrize("damage", [cut_in_a_list, empty, noise])
def test_a_damaged_spec_is_named(damage: Callable[[bytes], bytes], study: Path, refused: Callable[..., str]):
    spoil(study, "spec.toml", damage)
    before = contents(study)
    for command in ("status", "resume"):
        assert "spec.toml" in refused(command, study)
    assert contents(study) == before


def test_a_study_whose_disk_was_full_goes_on_when_it_is_not(
    home: Path, tmp_path: Path, explored: Explored, run: Callable[..., Ran]
):
    folder = tmp_path / "study"
    words = ["explore", "spec.toml", "--folder", str(folder), "--workers", "1"]
    stopped = subprocess.run(
        [sys.executable, "-c", LIMITED, *words],
        cwd=home,
        # The limit would meet files of a measurement of coverage, too.
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (stopped.returncode, stopped.stdout) == (2, "")
    slowly = "No worker is available yet"  # on a busy machine
    named, imported, *tried, said = [line for line in stopped.stderr.splitlines() if slowly not in line]
    assert {named, imported} == {NAMED, f"lratlas: Imports cli_own from {home / 'cli_own.py'}."}
    assert len(tried) == 2
    assert all("failed and is retried: tables/traces/pretrain-" in line for line in tried)
    assert said.startswith("lratlas: A job failed in 3 attempts (pretrain-")
    assert "File too large" in said
    assert "All results so far are saved" in said

    # Without a terminal there is the result and nothing else.
    with workerless():
        ran = run("resume", folder, "--workers", "1")
    assert (ran.code, ran.err) == (0, f"{NAMED}\n")
    assert "| boundary" in ran.out
    assert ran.out.endswith(f"Report: {folder}/report.html\n")
    assert not list(folder.rglob(".lratlas-*"))
    assert_same_tables(folder, explored)
