"""A check that all nodes of the cluster share the run's folder, because tables are written on one node and read on another."""

from __future__ import annotations

import uuid

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vgs_ray.data.storage import AnyPath
from vgs_ray.errors import UserError

WAIT_S = 60.0


def check_shared(folder: AnyPath) -> None:
    """Let every node read a probe file in the folder and write a reply. A cluster of one node is not checked.

    Nodes that join later are not checked. Nodes that die or do not reply within a minute are ignored; Ray handles those.

    Raises:
        UserError: a node does not see the folder or cannot write to it.
    """
    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    if len(nodes) < 2:
        return
    probe = folder / f".shared-{uuid.uuid4().hex}"
    probe.write_text("probe")
    try:
        replies = {node: _reply.options(scheduling_strategy=_on(node)).remote(probe) for node in nodes}
        failed = [nodes[node] for node, reply in replies.items() if not _is_shared(probe, node, reply)]
    finally:
        for file in folder.glob(f"{probe.name}*"):
            file.unlink(missing_ok=True)
    if failed:
        raise UserError(
            f"{folder} is not the same folder on {', '.join(sorted(failed))}; all nodes read and write the tables of a run: "
            "mount a shared file system on every node, and pass a folder on it as --root"
        )


@ray.remote(num_cpus=0, max_retries=0)
def _reply(probe: AnyPath) -> None:
    """Read the probe, and write a file that is named after this node."""
    _reply_path(probe, ray.get_runtime_context().get_node_id()).write_text(probe.read_text())


def _reply_path(probe: AnyPath, node: str) -> AnyPath:
    return probe.with_name(f"{probe.name}.{node}")


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node, soft=False)


def _is_shared(probe: AnyPath, node: str, reply: ray.ObjectRef) -> bool:
    try:
        ray.get(reply, timeout=WAIT_S)
    except OSError:  # raised by the task: Ray's error is also an instance of the task's exception
        return False
    except (GetTimeoutError, RayError):
        return True
    return _reply_path(probe, node).exists()
