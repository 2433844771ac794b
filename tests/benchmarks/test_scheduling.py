import json

import pytest

from benchmarks import scheduling


def test_every_job_is_told_and_done(capsys: pytest.CaptureFixture[str]):
    scheduling.main(["--jobs", "40", "--workers", "2", "--no-ray", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["jobs"], found["workers"], set(found["seconds"])) == (40, 2, {"this machine"})
    assert found["seconds"]["this machine"] > 0
