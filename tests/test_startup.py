"""A command ends on SIGTERM, whatever it does at that moment."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

# A task whose data never come: the main thread waits in C, where no handler of Python's is called.
STUCK = """
import ctypes, sys
from lratlas import startup
from lratlas.cli.app import main

def data():
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    print("stuck", flush=True)
    for _ in range(2):
        library.pthread_mutex_lock(mutex)

startup.PATIENCE = 0.5
sys.modules["stuck"] = sys.modules["__main__"]
sys.argv = ["lratlas", "explore", sys.argv[1], "--folder", sys.argv[2]]
main()
"""
SPEC = """
[task]
data = "stuck:data"
model = "stuck:data"
[pretrain]
lrs = [0.1]
steps = 1
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a mutex as on Linux")
def test_a_command_that_is_deep_in_a_computation_ends_all_the_same(tmp_path: Path):
    (tmp_path / "spec.toml").write_text(SPEC)
    words = [sys.executable, "-c", STUCK, str(tmp_path / "spec.toml"), str(tmp_path / "study")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            while "stuck" not in (line := process.stderr.readline()):
                assert line, process.communicate()
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 143
    assert "lratlas: terminated; no result is lost" in errors
