"""A Ray cluster on this machine that an autoscaler grows from nothing. GPUs are only numbers, and each node is a raylet.

Use it after `namespaces.in_namespaces`: it then has the ports and /run to itself, and nothing of it outlives the process.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from namespaces import RAY
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE

ADDRESS = "127.0.0.1:6379"
STORE_BYTES = 80 * 2**20
GROUP = "group"
"""Label of each node with the name of its type."""
PROVIDER = {
    "type": "external",
    "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
    "gcs_address": ADDRESS,
    "head_node_id": FAKE_HEAD_NODE_ID,
    "use_node_id_as_ip": True,
    "launch_multiple": True,
    "disable_node_updaters": True,
    "disable_launch_config_check": True,
}
VARIABLES = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_task_events_report_interval_ms": "100",
    "RAY_AUTH_MODE": "disabled",  # else it is on if this user has a token
}


def node_types(types: Mapping[str, Any], most: Mapping[str, int]) -> dict[str, Any]:
    """Node types of the cluster launcher, with other maximum numbers of nodes, and small object stores."""
    return {
        name: {
            "resources": {kind: count for kind, count in types[name]["resources"].items() if kind in ("CPU", "GPU")}
            | {"object_store_memory": STORE_BYTES},
            "labels": types[name].get("labels", {}) | {GROUP: name},
            "node_config": {},
            "min_workers": 0,
            "max_workers": count,
        }
        for name, count in most.items()
    }


def live_groups() -> Counter[str]:
    """Live nodes of the open Ray session by group."""
    return Counter(node["Labels"].get(GROUP, "head") for node in ray.nodes() if node["Alive"])


class AutoscaledCluster:
    """A head without CPUs, and its autoscaler (version 2).

    Args:
        types: node types that it may start.
        variables: environment of all processes of the cluster.
    """

    def __init__(self, types: Mapping[str, Any], variables: Mapping[str, str]) -> None:
        folder = Path(tempfile.mkdtemp(dir="/run"))  # short, because the paths of sockets are limited
        self._config, log = folder / "autoscaling.json", folder / "ray.log"
        self.allow(types)
        process = subprocess.Popen(
            [
                RAY, "start", "--head", "--block", "--num-cpus=0", "--num-gpus=0", "--node-ip-address=127.0.0.1", "--port=6379",
                "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}",
                f"--object-store-memory={STORE_BYTES}", f"--autoscaling-config={self._config}",
            ],
            env={**os.environ, **VARIABLES, **variables}, stdout=log.open("wb"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        while not (folder / "ray_current_cluster").exists():
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)

    def allow(self, types: Mapping[str, Any]) -> None:
        """Let the autoscaler start these nodes. It reads its configuration again each second."""
        head = {"resources": {}, "node_config": {}, "max_workers": 0}
        commands = ("setup", "head_setup", "worker_setup", "initialization", "head_start_ray", "worker_start_ray")
        config = {
            "cluster_name": "simulated", "max_workers": 100, "idle_timeout_minutes": 60, "provider": PROVIDER, "auth": {},
            "available_node_types": {**types, FAKE_HEAD_NODE_TYPE: head}, "head_node_type": FAKE_HEAD_NODE_TYPE,
            **{f"{kind}_commands": [] for kind in commands}, "file_mounts": {}, "cluster_synced_files": [],
        }  # fmt: skip
        temporary = self._config.with_suffix(".tmp")
        temporary.write_text(json.dumps(config))
        temporary.rename(self._config)

    def lose(self, node: str) -> None:
        """Kill all processes of a node, which the autoscaler does not replace from now on."""
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess):
                if any("autoscaler/v2/monitor.py" in word for word in process.cmdline()):
                    process.suspend()
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess):
                if process.environ().get("RAY_OVERRIDE_NODE_ID_FOR_TESTING") == node:
                    process.kill()
