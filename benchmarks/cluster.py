"""The same study by local workers and on a Ray cluster of this machine, in turns: what Ray costs.

The ticks study, from its stored plan to its last job; the cluster is up before, and the compiler's cache is warm.

    python benchmarks/cluster.py [--rounds N] [--repeats N] [--workers N]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from lratlas.config.presets import preset
from lratlas.config.sections import Spec
from lratlas.study.run import open_study, run_study


def seconds(spec: Spec, *, workers: int, cluster: str | None) -> float:
    """How long the study takes in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_study(Path(folder) / "study", spec)
        began = time.perf_counter()
        run_study(store, spec, workers=workers, cluster=cluster)
        return time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What Ray costs.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args(arguments)
    from ray.cluster_utils import Cluster

    spec = preset("ticks", repeats=given.repeats)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": given.workers, "include_dashboard": False})
    try:
        seconds(spec, workers=given.workers, cluster=None)
        ratios = list[float]()
        for number in range(1, given.rounds + 1):
            local = seconds(spec, workers=given.workers, cluster=None)
            on_ray = seconds(spec, workers=given.workers, cluster=cluster.address)
            ratios.append(on_ray / local)
            print(f"round {number}: local {local:.1f} s, Ray {on_ray:.1f} s, ratio {ratios[-1]:.3f}", flush=True)
        print(f"median ratio {statistics.median(ratios):.3f}")
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
