"""The cases of the stand-in device, in separate processes: a registered device stays for good."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).parent / "stand_in" / "cases.py"


@pytest.mark.parametrize("float64", ["yes", pytest.param("no", marks=pytest.mark.long)])
def test_the_cases_of_the_stand_in_device_pass(float64: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(CASES)]
    ran = subprocess.run(
        command, env={**os.environ, "STAND_IN_FLOAT64": float64}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
