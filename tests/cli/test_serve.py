"""`lratlas serve`: a study's page, live."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cli.helpers import Explored
from lratlas import Finder
from serve.helpers import ask


@contextmanager
def serving(*words: object) -> "Generator[tuple[subprocess.Popen[str], str]]":
    """The command, and the address that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lratlas", "serve", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout
    try:
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_address_alone_is_printed_and_ctrl_c_is_a_clean_end(number: signal.Signals, explored: Explored):
    with serving(explored.folder) as (process, line):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{20,}/\n", line)
        page = ask(line.strip())
        assert page.status == 200
        assert "<title>tiny" in page.body
        assert ask(line.strip(), "/").status == 404
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert err == f"lratlas: serving {explored.folder}, read-only; press Ctrl-C to stop.\nlratlas: ended.\n"


def test_the_end_does_not_wait_for_a_page_that_is_being_made(study: Path):
    with serving(study) as (process, line):
        place = urlsplit(line.strip())
        with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
            connection.sendall(f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert err.splitlines()[1:] == ["lratlas: ended."]


def test_a_study_is_followed_from_its_spec_to_its_end(study: Path, tmp_path: Path):
    folder = tmp_path / "growing"
    folder.mkdir()
    shutil.copy(study / "spec.toml", folder)
    with serving(folder) as (_, line):
        url = line.strip()
        first, bare = ask(url + "version").body, ask(url)
        assert (bare.status, "not planned yet" in bare.body) == (200, True)
        for part in ("plan.json", "tables/traces", "tables/runs", "checkpoints", "tables/pairs"):
            (shutil.copytree if (study / part).is_dir() else shutil.copy)(study / part, folder / part)
        # A page that took long to make stands for a while.
        for _wait in range(6000):
            if ask(url + "version").body != first:
                break
            time.sleep(0.05)
        whole = ask(url)
        assert (whole.status, "not planned yet" in whole.body) == (200, False)
        assert len(whole.body) > len(bare.body)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoints", "plan.json", "spec.toml", "tables"]


def test_a_damaged_table_is_told_and_got_over(study: Path):
    with serving(study) as (_, line):
        url = line.strip()
        part = next(iter(sorted((study / "tables" / "runs").glob("*.parquet"))))
        data = part.read_bytes()
        part.write_bytes(data[: len(data) // 2])
        damaged = ask(url)
        assert damaged.status == 503
        assert part.name in damaged.body
        assert "Traceback" not in damaged.body
        part.write_bytes(data)
        assert ask(url).status == 200


def test_a_network_is_warned_of(study: Path):
    with serving(study, "--host", "0.0.0.0") as (process, line):
        assert line.startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert "lratlas: anybody on the network with the address can read the page" in err
    assert process.returncode == 0


def test_the_port_can_be_chosen_but_not_one_that_is_taken(study: Path, refused: Callable[..., str]):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"Cannot listen on port {port} of '127.0.0.1'" in refused("serve", study, "--port", port)
    with serving(study, "--port", port) as (_, line):
        assert urlsplit(line).port == port


def test_a_search_is_followed_from_its_first_results_on(tmp_path: Path):
    finder = Finder(tmp_path, steps=64, lrs=[0.01, 0.1, 1.0])
    with serving(tmp_path) as (_, line):
        url = line.strip()
        nothing, first = ask(url), ask(url + "version").body
        assert nothing.status == 503
        assert "Traceback" not in nothing.body
        while (segment := finder.ask()) is not None:
            finder.tell(segment, value=-abs(segment.lr - 0.1) - 1 / segment.stop)
            if finder.results[1:] and not finder.finished:
                break
        page = ask(url)
        assert (page.status, "searching: " in page.body) == (200, True)
        assert "connect-src" in page.body
        assert ask(url + "version").body != first


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent"], "There is no folder"),
        (["absent", "--port", "65536"], "--port is '65536', but must be a whole number from 0 (any free one) to 65535"),
        (["absent", "--port", "web"], "--port is 'web', but must be"),
        (["absent", "--port", "-1"], "--port is '-1', but must be"),
        ([], "Missing argument 'FOLDER'"),
    ],
)
def test_wrong_words_end_with_one_sentence(words: list[str], said: str, refused: Callable[..., str]):
    assert said in refused("serve", *words)
