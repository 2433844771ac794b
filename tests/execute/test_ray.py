"""A Ray cluster of three nodes on this machine: the tables of local workers, also where two nodes die on the way."""

import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

import lratlas
from lratlas.atlas import Atlas
from lratlas.errors import StudyError
from lratlas.execute.ray import RayWorkers
from lratlas.execute.scheduler import Progress
from lratlas.study.records import read_failures
from study.running import LONG, kept_part_way, started, ticks_spec, under_way

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore"), pytest.mark.xdist_group("ray")]

SPEC = ticks_spec(
    "lrs = [1e-3, 1e-2, 1e-1]\nsteps = 1500\nrepeats = 2",
    stack=2,
    segment_steps=100,
    more="[finetune]\nlrs = [1e-3]\nsteps = 50",
)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "ticks.toml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def local(spec: Path) -> Atlas:
    """The study, by local workers."""
    return lratlas.explore(spec, folder=spec.parent / "local", workers=2)


@pytest.fixture
def cluster() -> "Generator[Any]":
    """Three nodes with a CPU each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(2):
            made.add_node(num_cpus=1)
        yield made
    finally:
        made.shutdown()


def test_two_nodes_die_and_the_tables_are_those_of_local_workers(
    spec: Path, local: Atlas, cluster: Any, tmp_path: Path
):
    doomed, folder = list(cluster.worker_nodes), tmp_path / "study"
    told, nodes = list[str](), list[int]()

    def progress(now: Progress) -> None:
        # Every node has ended a segment of a stack; then one goes each time that more has been trained than before.
        begun = {path.name.rpartition("-")[0] for path in folder.glob("tables/traces/[!.]*")}
        if doomed and len(begun) >= 3 and now.trained > 200 * (1 + len(nodes)):
            nodes.append(now.trained)
            cluster.remove_node(doomed.pop(), allow_graceful=False)

    atlas = lratlas.explore(
        spec, folder=folder, workers=None, cluster=cluster.address, progress=progress, notice=told.append
    )
    assert len(nodes) == 2
    assert any("with its node" in failure.reason for failure in read_failures(atlas.store))
    assert not any(failure.given_up for failure in read_failures(atlas.store))
    for name, table in local.tables.items():
        other = atlas.table(name)
        assert_frame_equal(table.drop("seconds", strict=False), other.drop("seconds", strict=False), check_exact=True)
    assert atlas.table("runs")["run"].n_unique() == len(atlas.table("runs")) == 2 * 3 * 2


def test_told_to_end_workers_on_a_cluster_keep_their_stacks(cluster: Any, tmp_path: Path):
    folder, spec = tmp_path / "study", tmp_path / "long.toml"
    spec.write_text(LONG)
    with started("explore", spec, "--folder", folder, "--cluster", cluster.address, "--workers", 2) as process:
        under_way(folder, workers=2)
        os.kill(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 143
    assert "no result is lost" in errors
    assert kept_part_way(folder)  # one at least: the other may be just at the end of a segment


def test_workers_share_a_gpu_as_far_as_it_goes(cluster: Any):
    cluster.add_node(num_cpus=4, num_gpus=1)  # Ray believes it

    def on_cluster(gpus: float) -> RayWorkers:
        return RayWorkers(address=cluster.address, most=None, first={}, gpus=gpus)

    for share, workers in ((0.25, 4), (0.4, 2), (1.0, 1)):
        with on_cluster(share) as made:
            assert made.workers == workers
    with pytest.raises(StudyError, match="no room for a worker that needs one CPU and 2 GPUs"):
        on_cluster(2.0).__enter__()


def test_a_cluster_that_is_not_there(spec: Path, tmp_path: Path):
    with pytest.raises(StudyError, match=r"There is no Ray cluster at 127\.0\.0\.1:1"):
        lratlas.explore(spec, folder=tmp_path / "study", workers=None, cluster="127.0.0.1:1")
