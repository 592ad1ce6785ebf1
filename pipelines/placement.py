"""Where a stage runs: Ray options for its actors and tasks, and a check that the cluster has or can start such nodes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray._raylet import GcsClient
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply, ResourceRequest

from vgs_ray.config import Resources, Train, Tune
from vgs_ray.config.node_labels import matches, selector, values_of
from vgs_ray.errors import UserError

DATA_CPUS = 1.0
"""CPUs that Ray Data's own tasks need beside an engine."""
POLL_S, WAIT_S = 0.5, 60.0


class NodeNeed(NamedTuple):
    """What one actor or worker needs of its node.

    Attributes:
        what: such as the section of the recipe, for error messages.
        cpus, gpus: what Ray reserves.
        nodes: labels of the node.
    """

    what: str
    cpus: float
    gpus: float
    nodes: tuple[str, ...]


def engine_options(resources: Resources) -> dict[str, Any]:
    """Ray options of an actor with engines, also for `Dataset.map_batches` and Ray Serve's `ray_actor_options`."""
    return _options(resources.num_cpus, resources.num_gpus, resources.nodes)


def engine_actors(replicas: int, calls: int) -> ray.data.ActorPoolStrategy:
    """Actors with engines for `Dataset.map_batches`, each with up to `calls` blocks at a time.

    They start as the cluster gives nodes. No further block waits at an actor, because it would wait although other actors are
    idle, or until an actor whose node is lost has another one.
    """
    return ray.data.ActorPoolStrategy(
        size=replicas, max_concurrent_calls_per_actor=calls, max_tasks_in_flight_per_actor=calls
    )


def worker_options(config: Train | Tune) -> dict[str, Any]:
    """Ray options of a task with the resources of a training worker."""
    return _options(config.cpus_per_worker, config.gpus_per_worker, config.nodes)


def _options(cpus: float, gpus: float, nodes: Sequence[str]) -> dict[str, Any]:
    return {"num_cpus": cpus, "num_gpus": gpus} | ({"label_selector": selector(nodes)} if nodes else {})


def use_nodes(nodes: Sequence[str]) -> None:
    """Run everything that Ray Data does from now on, and tasks with `stage_options`, on nodes with these labels.

    Ray Data also passes the labels on when it asks the autoscaler for more nodes; without them it could start another group.
    """
    ray.data.DataContext.get_current().execution_options.label_selector = selector(nodes) or None


def stage_options() -> dict[str, Any]:
    """Ray options of a task that runs on the nodes of the current stage."""
    labels = ray.data.DataContext.get_current().execution_options.label_selector
    return {"label_selector": labels} if labels else {}


def gpus_at_once() -> float:
    """GPUs that the cluster can have at the same time. An autoscaler starts nodes as long as actors wait, so it has no number."""
    return math.inf if autoscales() else ray.cluster_resources().get("GPU", 0.0)


def check_engine_nodes(name: str, resources: Resources, beside: float = DATA_CPUS) -> None:
    """Refuse resources of an engine that no node can have; Ray would wait forever.

    Args:
        name: the field of the resources, such as `roll_out.resources`.
        resources: of one actor.
        beside: CPUs that other tasks need on the same node.

    Raises:
        UserError: no node is large enough and has the labels, and the autoscaler can't start one.
    """
    what = f"{name}, with {beside:g} CPUs for Ray Data's tasks," if beside else name
    check_nodes(NodeNeed(what, resources.num_cpus + beside, resources.num_gpus, resources.nodes))


def check_worker_nodes(name: str, config: Train | Tune) -> None:
    """As `check_engine_nodes`, for a training worker."""
    check_nodes(NodeNeed(name, config.cpus_per_worker, config.gpus_per_worker, config.nodes))


def check_nodes(need: NodeNeed) -> None:
    """As `check_engine_nodes`."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    if any(_fits(node, need) for node in alive) or (autoscales() and _can_start(need)):
        return
    parts = [f"{need.cpus:g} CPUs", f"{need.gpus:g} GPUs" if need.gpus else "", " ".join(need.nodes)]
    largest = ", ".join(f"{_most(alive, kind):g} {kind}s" for kind in ("CPU", "GPU"))
    raise UserError(
        f"{need.what} needs a node with {', '.join(filter(None, parts))}; no node of the cluster has all of that (most on one "
        f"node: {largest}), and none can be started by an autoscaler (version 2): add such nodes, or change the recipe's "
        "resources and labels of nodes"
    )


def _most(nodes: Sequence[Mapping[str, Any]], kind: str) -> float:
    return max((node["Resources"].get(kind, 0.0) for node in nodes), default=0.0)


def _fits(node: Mapping[str, Any], need: NodeNeed) -> bool:
    resources = node["Resources"]
    enough = resources.get("CPU", 0.0) >= need.cpus and resources.get("GPU", 0.0) >= need.gpus
    return enough and matches(node.get("Labels") or {}, need.nodes)


def autoscales() -> bool:
    """Whether the autoscaler knows labels and can be asked: version 2, the default of `ray up`."""
    return is_autoscaler_v2(fetch_from_server=True, gcs_client=GcsClient(_gcs()))


def _gcs() -> str:
    return str(ray.get_runtime_context().gcs_address)


@ray.remote(max_retries=0)
def _wait_for_node() -> None:
    """Does nothing on a node that fits."""


def _can_start(need: NodeNeed) -> bool:
    """Ask the autoscaler for such a node. Its configuration can't be read, but it reports requests that it can't meet.

    Returns:
        False if the request is one of those; True if it is not, or if the autoscaler does not answer.
    """
    task = _wait_for_node.options(**_options(need.cpus, need.gpus, need.nodes)).remote()
    asked, deadline = math.inf, time.monotonic() + WAIT_S
    try:
        while time.monotonic() < deadline and not ray.wait([task], timeout=POLL_S)[0]:
            reply = GetClusterStatusReply.FromString(GcsClient(_gcs()).get_cluster_status(timeout_s=WAIT_S))
            cluster, autoscaler = reply.cluster_resource_state, reply.autoscaling_state
            if any(_is(need, each.request) for each in cluster.pending_resource_requests):
                asked = min(asked, cluster.cluster_resource_state_version)
            if autoscaler.last_seen_cluster_resource_state_version >= asked:
                return not any(_is(need, request) for request in autoscaler.infeasible_resource_requests)
        return True
    finally:
        ray.cancel(task, force=True)


def _is(need: NodeNeed, request: ResourceRequest) -> bool:
    """Whether a request of the autoscaler is that of a task with this need."""
    constraints = [each for labels in request.label_selectors for each in labels.label_constraints]
    labels = {each.label_key: set(each.label_values) for each in constraints}
    bundle = dict(request.resources_bundle)
    return (bundle.get("CPU", 0.0), bundle.get("GPU", 0.0), labels) == (
        need.cpus, need.gpus, {key: values_of(condition) for key, condition in selector(need.nodes).items()},
    )  # fmt: skip
