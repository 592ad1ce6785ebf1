"""Whether every node of the cluster sees the run's folder: tables are written on one node and read on another."""

from __future__ import annotations

import uuid
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vgs_ray.errors import UserError

WAIT_S = 60.0


@ray.remote(num_cpus=0, max_retries=0)
def _answer(question: Path) -> None:
    """Beside a file that another node wrote, leave one that it can read."""
    question.with_name(f"{question.name}.{ray.get_runtime_context().get_node_id()}").write_text(question.read_text())


def check_shared(folder: Path) -> None:
    """Let each node read what this process wrote into a folder, and read what it answers. One node alone is not asked.

    A node that joins later is not checked, nor is one that dies or does not answer within a minute: Ray deals with those.

    Raises:
        UserError: nodes that don't see the folder, or can't write there.
    """
    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    if len(nodes) < 2:
        return
    question = folder / f".shared-{uuid.uuid4().hex}"
    question.write_text("seen")
    try:
        asked = {node: _answer.options(scheduling_strategy=_on(node)).remote(question) for node in nodes}
        blind = [nodes[node] for node, answer in asked.items() if not _is_shared(question, node, answer)]
    finally:
        for file in folder.glob(f"{question.name}*"):
            file.unlink(missing_ok=True)
    if blind:
        raise UserError(
            f"{folder} is not the same folder on {', '.join(sorted(blind))}; all nodes write and read a run's tables: "
            "mount a shared file system on every node, and pass a folder of it as --root"
        )


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node, soft=False)


def _is_shared(question: Path, node: str, answer: ray.ObjectRef) -> bool:
    try:
        ray.get(answer, timeout=WAIT_S)
    except OSError:  # Ray's error of a task is also what the task raised
        return False
    except (GetTimeoutError, RayError):
        return True
    return question.with_name(f"{question.name}.{node}").exists()
