"""Two nodes of Slurm, or of Ray, on this machine; where they cannot be had, a test is skipped with a reason."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.closure import ROOT

RECIPES = ROOT.parent / "shared" / "recipes"


@contextlib.contextmanager
def slurm_nodes(folder: Path) -> Iterator[dict[str, str]]:
    """Nodes n1 and n2 with two cores each; what their users have in their environment."""
    up, down = RECIPES / "slurm_up.sh", RECIPES / "slurm_down.sh"
    if not up.is_file():
        pytest.skip(f"{up} is not there")
    if shutil.which("slurmctld") is None or os.geteuid():
        pytest.skip("needs root, slurm-wlm and munge")
    done = subprocess.run(["bash", str(up), str(folder)], capture_output=True, text=True, check=False, timeout=120)
    try:
        if done.returncode:
            pytest.skip(f"Slurm does not start here: {done.stderr.strip()}")
        yield {"SLURM_CONF": str(folder / "slurm.conf")}
    finally:
        subprocess.run(["bash", str(down), str(folder)], capture_output=True, check=False)


@contextlib.contextmanager
def ray_nodes() -> Iterator[tuple[object, object, dict[str, str]]]:
    """A head that works nothing and two nodes with two cores and a made-up GPU each.

    Gives the cluster (of ray.cluster_utils), the second node, and what its users have in their environment.
    """
    pytest.importorskip("ray", reason="Ray is not installed: uv sync --group ray")
    from ray.cluster_utils import Cluster

    memory = 80 * 2**20
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": memory})
    try:
        _, second = (cluster.add_node(num_cpus=2, num_gpus=1, object_store_memory=memory) for _ in range(2))
        yield cluster, second, {"RAY_ADDRESS": cluster.address}
    finally:
        cluster.shutdown()


def processes_with(**environment: str) -> list[psutil.Process]:
    """The living Python processes that have all this in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "python" in process.name() and environment.items() <= process.environ().items():
                found.append(process)
    return found
