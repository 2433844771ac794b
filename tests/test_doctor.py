"""The facts about a machine are there and sound."""

import platform
import shutil

import torch

from lratlas.doctor import checkup, sgemm_peak


def test_the_checkup_has_versions_cores_and_a_positive_peak() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        facts = checkup()
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert facts["python"] == platform.python_version()
    assert facts["torch"] == torch.__version__
    assert isinstance(facts["cores"], int)
    assert facts["cores"] >= 1
    assert (facts["device"] == "cpu") != torch.cuda.is_available()
    there = any(shutil.which(name) for name in ("g++", "clang++", "c++"))
    assert (facts["compilation"] == "works") == there
    assert str(facts["memory"]).endswith(" GiB")
    peak = facts["sgemm GFLOP/s"]
    assert isinstance(peak, float)
    assert peak > 0


def test_the_peak_is_a_rate_of_operations_and_not_a_time() -> None:
    # No processor does one operation per microsecond or 10^17 per second.
    assert 1e-3 < sgemm_peak(128, tries=2) < 1e8
