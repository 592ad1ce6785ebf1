"""A check that all nodes of the cluster reach the run's folder, because tables are written on one node and read on another."""

from __future__ import annotations

import socket
import uuid

import ray
from ray.exceptions import GetTimeoutError, RayError

from pipelines.placement import autoscales, stage_options
from pipelines.tables.tasks import on_node
from vgs_ray.data.probe import ERRORS, read_probe, reason, variables, write_probe
from vgs_ray.data.storage import AnyPath, is_local
from vgs_ray.errors import UserError

WAIT_S = 60.0


def check_shared(folder: AnyPath) -> None:
    """Let every node read a probe file in the folder and write a reply. A cluster of one node with a local folder is not checked.

    If an autoscaler has started no node yet, this waits for the first one. Nodes that join later are not checked. Nodes that die
    or do not reply within a minute are ignored; Ray handles those.

    Raises:
        UserError: a node does not see the folder or cannot write to it.
    """
    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    if len(nodes) < 2 and autoscales():
        print("waiting for the first node", flush=True)
        nodes |= ray.get(_this_node.options(**stage_options()).remote())
    if len(nodes) < 2 and is_local(folder):
        return
    probe = folder / f".shared-{uuid.uuid4().hex}"
    write_probe(probe, b"probe")
    try:
        replies = {node: _reply.options(scheduling_strategy=on_node(node)).remote(probe) for node in nodes}
        failures = [(nodes[node], _failure(probe, node, reply)) for node, reply in replies.items()]
    finally:
        for file in folder.glob(f"{probe.name}*"):
            file.unlink(missing_ok=True)
    if failed := sorted((node, failure) for node, failure in failures if failure):
        raise UserError(_message(folder, failed))


def _message(folder: AnyPath, failed: list[tuple[str, str]]) -> str:
    if is_local(folder):
        return (
            f"{folder} is not the same folder on {', '.join(node for node, _ in failed)}; all nodes read and write the "
            "tables of a run: mount a shared file system on every node, and pass a folder on it as --root"
        )
    nodes = ", ".join(f"{node} ({failure})" for node, failure in failed)
    return (
        f"{folder} can't be used on {nodes}; all nodes read and write the tables of a run: set {variables(folder)} on every "
        "node before Ray starts there (docs/storage.md)"
    )


@ray.remote(num_cpus=0.01)
def _this_node() -> dict[str, str]:
    """Id and host name. Needs some CPU, which the head of an autoscaled cluster does not offer."""
    return {ray.get_runtime_context().get_node_id(): socket.gethostname()}


@ray.remote(num_cpus=0, max_retries=0)
def _reply(probe: AnyPath) -> str:
    """Read the probe, and write a file that is named after this node.

    Returns:
        The reason if this failed.
    """
    try:
        write_probe(_reply_path(probe, ray.get_runtime_context().get_node_id()), read_probe(probe))
    except ERRORS as error:
        return reason(error)
    return ""


def _reply_path(probe: AnyPath, node: str) -> AnyPath:
    return probe.with_name(f"{probe.name}.{node}")


def _failure(probe: AnyPath, node: str, reply: ray.ObjectRef) -> str:
    try:
        if failure := ray.get(reply, timeout=WAIT_S):
            return str(failure)
    except (GetTimeoutError, RayError):
        return ""
    return "" if _reply_path(probe, node).exists() else "its files are not visible here"
