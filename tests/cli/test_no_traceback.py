"""Absurd specs, files without an end, storage that fails, what nobody foresaw: all end with a sentence."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.helpers import SPEC, Ran, sentence

Refused = Callable[..., str]
Run = Callable[..., Ran]
HUGE = 10**30
SPECS = [
    ("lrs = [1e-3, 1e-1]", "lrs = [1e400]", "`pretrain.lrs` holds inf"),
    ("lrs = [1e-3, 1e-1]", f"lrs = [{HUGE**20}]", "`pretrain.lrs` holds 1000"),
    ("lrs = [1e-3, 1e-1]", f"lrs = {[1 + at / 1e6 for at in range(10_001)]}", "holds 10,001 LRs, but at most 10,000"),
    ("steps = 100", f"steps = {HUGE}", "`pretrain.steps` is 1000"),
    ("steps = 100", "steps = -100", "`pretrain.steps` is -100"),
    ("steps = 100", "steps = nan", "`pretrain.steps` is nan"),
    ("steps = 100", f"steps = {'9' * 5000}", "is not valid TOML: Exceeds the limit"),
    ("batch_size = 16", f"batch_size = {HUGE}", "must be a whole number of at least 1 and at most 1,000,000,000"),
    ("counts = [2]", f"counts = [2]\nevery = {HUGE}", "`average.every` is 1000"),
    ("compile = false", f"segment_steps = {HUGE}", "`training.segment_steps` is 1000"),
    ("compile = false", f"stack = {HUGE}", "`training.stack` is 1000"),
    ('name = "tiny"', f'name = "{"a" * 1001}"', "`name` is"),
    ('name = "tiny"', "name = " + "[" * 5000, "is not valid TOML"),
    (
        "[pretrain]\nlrs = [1e-3, 1e-1]",
        "[pretrain]\nrepeats = 10000\nlrs = {low = 1, high = 10, per_decade = 99}",
        "runs",
    ),
]


@pytest.mark.parametrize(("old", "new", "said"), SPECS)
def test_absurd_numbers_in_a_spec_are_named(old: str, new: str, said: str, tmp_path: Path, refused: Refused):
    assert old in SPEC
    (tmp_path / "spec.toml").write_text(SPEC.replace(old, new))
    assert said in refused("explore", tmp_path / "spec.toml", "-f", tmp_path / "study")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("kind", ["device", "pipe", "long"])
def test_what_has_no_end_is_no_spec(kind: str, tmp_path: Path, refused: Refused):
    path = tmp_path / "spec.toml"
    if kind == "device":
        path = Path("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    assert "is not a regular file" in (said := refused("explore", path, "-f", tmp_path / "study")) or "bytes" in said


@pytest.mark.parametrize("secret", ["", "secret"])
def test_storage_that_cannot_be_reached_is_named(secret: str, refused: Refused, monkeypatch: pytest.MonkeyPatch):
    """Without credentials, and with an endpoint where nobody listens."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {"EC2_METADATA_DISABLED": "true", "MAX_ATTEMPTS": "1", "ENDPOINT_URL": "http://127.0.0.1:9"}
    files = {"CONFIG_FILE": os.devnull, "SHARED_CREDENTIALS_FILE": os.devnull}
    keys = {"ACCESS_KEY_ID": secret, "SECRET_ACCESS_KEY": secret, "DEFAULT_REGION": "us-east-1"} if secret else {}
    for name, value in (settings | files | keys).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    said = refused("status", "s3://lratlas-nobody/study")
    assert said.startswith("s3://lratlas-nobody/study cannot be read: ")
    assert ("Could not connect" if secret else "Unable to locate credentials") in said
    S3FileSystem.clear_instance_cache()


class Panic(BaseException):
    """As those of libraries in Rust."""


@pytest.mark.parametrize("error", [RuntimeError("odd\nthing"), Panic("odd\nthing")])
def test_what_nobody_foresaw_is_a_sentence_with_the_place_of_the_traceback(
    error: BaseException, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    def fail(_: str) -> None:
        raise error

    monkeypatch.setattr("lratlas.atlas.load", fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    said = sentence(run("status", "anywhere"))
    (log,) = tmp_path.glob("lratlas-*.log")
    assert said == f"{type(error).__name__}: odd; the traceback is in {log}."
    text = log.read_text()
    assert text.startswith("lratlas status anywhere\nTraceback")
    assert "in fail" in text


def test_memory_that_does_not_suffice_is_said(refused: Refused, monkeypatch: pytest.MonkeyPatch):
    def fail(_: str) -> None:
        raise MemoryError("Unable to allocate 7 PiB")

    monkeypatch.setattr("lratlas.atlas.load", fail)
    assert refused("status", "anywhere") == "Out of memory: Unable to allocate 7 PiB."


LIMITS = {"few files": (resource.RLIMIT_NOFILE, 64), "little address space": (resource.RLIMIT_AS, 6 * 2**30)}


@pytest.mark.parametrize("name", LIMITS)
def test_a_report_is_written_by_a_process_that_may_have_little(name: str, study: Path):
    """Only figures are left out, where there is little address space."""
    kind, most = LIMITS[name]
    (study / "report.html").unlink()
    shutil.rmtree(study / "figures")
    code = f"import resource; resource.setrlimit({kind}, ({most}, {most}))\nfrom lratlas.cli.app import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, "report", study], capture_output=True, encoding="utf-8", check=False
    )
    assert (ended.returncode, ended.stdout) == (0, f"Report: {study}/report.html\n"), ended.stderr
    assert (study / "report.html").stat().st_size > 10_000
    assert (study / "figures" / "accuracy.csv").exists()
    drawn = (study / "figures" / "accuracy.svg").exists()
    if name == "few files":
        assert (drawn, ended.stderr) == (True, "")
    else:
        assert not drawn
        assert ended.stderr.startswith("lratlas: No PDF and SVG figures are written: ")
