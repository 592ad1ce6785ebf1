"""Which nodes of a cluster hold what a stage asks for. Pure: groups of nodes and demands in, placement and misfits out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vgs_ray.config.node_labels import matches


class Group(NamedTuple):
    """Nodes of one type.

    Attributes:
        name: of the group.
        nodes: maximum number.
        cpus, gpus: of one node.
        gpu_gib: memory of one GPU in GiB; 0 if unknown, and then memory is not checked.
        labels: of its nodes.
    """

    name: str
    nodes: int
    cpus: float
    gpus: int = 0
    gpu_gib: float = 0.0
    labels: Mapping[str, str] = {}


class Demand(NamedTuple):
    """Equal actors, workers or tasks that run at the same time.

    Attributes:
        size_field, number_field: fields of the recipe with the resources of one of them and with their number, for messages.
        number: how many there are.
        cpus, gpus: what Ray reserves for one of them, on one node.
        nodes: labels of the node.
        gpu_gib: memory in GiB that each of its GPUs must have.
    """

    size_field: str
    number_field: str
    number: int
    cpus: float
    gpus: float = 0.0
    nodes: tuple[str, ...] = ()
    gpu_gib: float = 0.0


class Placed(NamedTuple):
    """How many members of a demand are on the nodes of a group."""

    demand: Demand
    group: str
    number: int


class Misfit(NamedTuple):
    """Members of a demand that have no node.

    Attributes:
        missing: their number.
        rule: what no node satisfies for even one of them: `labels`, `size` or `memory`; or `nodes` if there are too few.
        groups: the groups that satisfy the rules before.
    """

    demand: Demand
    missing: int
    rule: str
    groups: tuple[Group, ...]


@dataclass
class Node:
    """One node while it is filled."""

    group: Group
    cpus: float = field(init=False)
    gpus: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.cpus, self.gpus = self.group.cpus, [1.0] * self.group.gpus

    def add(self, demand: Demand) -> bool:
        """Add a member if it fits. Whole GPUs are its own; a fraction shares one."""
        chosen = self._gpus_for(demand.gpus)
        if demand.cpus > self.cpus + 1e-9 or chosen is None:
            return False
        self.cpus -= demand.cpus
        for gpu in chosen:
            self.gpus[gpu] -= min(demand.gpus, 1.0)
        return True

    def _gpus_for(self, amount: float) -> list[int] | None:
        """The GPUs of a member, the fullest ones that fit; None if there are too few."""
        part, number = min(amount, 1.0), math.ceil(amount)
        free = [index for index, share in enumerate(self.gpus) if share >= part - 1e-9]
        return sorted(free, key=lambda index: self.gpus[index])[:number] if len(free) >= number else None


class Placement(NamedTuple):
    """What is where, what has no node, and how many nodes of each group are used."""

    placed: list[Placed]
    misfits: list[Misfit]
    nodes: dict[str, int]


def place(groups: Sequence[Group], demands: Iterable[Demand], max_nodes: float = math.inf) -> Placement:
    """Put demands that run at the same time on as few nodes as first fit needs, those with most GPUs first.

    A demand without GPUs takes nodes without GPUs first, as Ray does; otherwise groups are filled in their order.

    Args:
        groups: of the cluster.
        demands: of one stage.
        max_nodes: maximum number of nodes of all groups together.
    """
    nodes: list[Node] = []
    placed, misfits = [], []
    for demand in sorted(demands, key=lambda each: (-each.gpus, -each.cpus)):
        rule, fitting = candidates(groups, demand)
        fitting = sorted(fitting, key=lambda group: group.gpus > 0 and not demand.gpus) if rule == "nodes" else fitting
        on = [node.group.name for node in _fill(nodes, fitting, demand, max_nodes)] if rule == "nodes" else []
        placed += [Placed(demand, name, on.count(name)) for name in dict.fromkeys(on)]
        if len(on) < demand.number:
            misfits.append(Misfit(demand, demand.number - len(on), rule, tuple(fitting)))
    used = [node.group.name for node in nodes]
    return Placement(placed, misfits, {name: used.count(name) for name in dict.fromkeys(used)})


def candidates(groups: Iterable[Group], demand: Demand) -> tuple[str, list[Group]]:
    """The groups whose nodes can hold one member, with the rule `nodes`; or the first rule that leaves no group, with the groups
    before it."""
    rules: dict[str, Callable[[Group], bool]] = {
        "labels": lambda group: matches(group.labels, demand.nodes),
        "size": lambda group: Node(group).add(demand),
        "memory": lambda group: group.gpu_gib >= demand.gpu_gib or not group.gpu_gib,
    }
    left = list(groups)
    for rule, holds in rules.items():
        kept = [group for group in left if holds(group)]
        if not kept:
            return rule, left
        left = kept
    return "nodes", left


def _fill(nodes: list[Node], groups: Sequence[Group], demand: Demand, max_nodes: float) -> Iterator[Node]:
    """The node of each member that has one. New nodes are added to `nodes`."""
    for _ in range(demand.number):
        node = next((node for node in nodes if node.group in groups and node.add(demand)), None)
        if node is None:
            opened = [each.group.name for each in nodes]
            free = [group for group in groups if opened.count(group.name) < group.nodes]
            if not free or len(nodes) >= max_nodes:
                return
            node = Node(free[0])
            node.add(demand)
            nodes.append(node)
        yield node
