"""A study on an S3-compatible server, which a test starts on a free port."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

import lratlas
from lratlas.atlas import Atlas
from lratlas.study.store import Store
from study.running import damaged, ticks_spec

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore"), pytest.mark.xdist_group("s3")]

SPEC = ticks_spec("lrs = [1e-3, 1e-2]\nsteps = 200", segment_steps=20)


class Server:
    """moto's server in a separate process, which can be cut off for a while."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        # Nobody reads what it prints: a pipe would fill up and stop it.
        command = [sys.executable, "-m", "moto.server", "-p", str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.05)
        raise TimeoutError(self.url)

    def pause(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def server() -> "Generator[Server]":
    made = Server()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "something",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": made.url,
        }.items():
            patch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("studies")
        yield made
        s3fs.S3FileSystem.clear_instance_cache()
    made.end()


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "ticks.toml"
    path.write_text(SPEC)
    return path


def same(one: Atlas, other: Atlas) -> None:
    for name, table in one.tables.items():
        pair = [each.drop("seconds", strict=False) for each in (table, other.table(name))]
        assert_frame_equal(*pair, check_exact=True)


def test_a_file_is_created_once(server: Server):
    assert server
    store = Store.create("s3://studies/once", "spec")
    assert store.create_file("driver.lock", b"first")
    assert not store.create_file("driver.lock", b"second")
    assert store.read_bytes("driver.lock") == b"first"


def test_a_study_on_s3_is_that_on_a_disk_also_if_the_connection_is_cut(
    server: Server, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    disk = lratlas.explore(spec, folder=tmp_path / "study")
    url = "s3://studies/cut"
    command = [sys.executable, "-m", "lratlas", "explore", str(spec), "--folder", url, "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
    seen, deadline = 0, time.monotonic() + 60
    while seen < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
        seen = len(Store.open(url).parts("traces")) if _begun(url) else 0
    server.pause()
    time.sleep(1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    server.go_on()
    kept = Store.open(url).parts("traces")
    assert len(kept) >= 3
    # Its driver left its count behind, which stands still now.
    monkeypatch.setattr("lratlas.study.lock.BEAT", 0.1)
    told = list[str]()
    finished = lratlas.explore(spec, folder=url, notice=told.append)
    assert told == [f"Another process is using {url}; waiting for it to finish."]
    assert kept <= Store.open(url).parts("traces")
    same(disk, finished)
    assert damaged(Store.open(url)) == []


def _begun(url: str) -> bool:
    return Store.open(url).exists("plan.json") if _there(url) else False


def _there(url: str) -> bool:
    import fsspec

    filesystem, root = fsspec.url_to_fs(url)
    filesystem.invalidate_cache()
    return bool(filesystem.exists(f"{root}/spec.toml"))
