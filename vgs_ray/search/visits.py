"""Visit counts and values of a Monte Carlo tree search, and its selection rule PUCT."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from vgs_ray.config import Mcts
from vgs_ray.search.tree import ROOT, Node


@dataclass
class Visits:
    """Visit counts and values of the nodes.

    Attributes:
        count: visits by node id; the root's count is the number of all visits.
        total: sum of the values of those visits, by node id.
        valued: visits that had a value, by node id.
        children: ids of the children of each expanded node, in order.
        priors: prior of a node by its id; a node without one has 1 / number of siblings.
        closed: nodes that no descent may enter.
    """

    count: dict[int, int] = field(default_factory=lambda: {ROOT: 0})
    total: dict[int, float] = field(default_factory=lambda: {ROOT: 0.0})
    valued: dict[int, int] = field(default_factory=lambda: {ROOT: 0})
    children: dict[int, list[int]] = field(default_factory=dict)
    priors: dict[int, float] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)

    def mean(self, id: int) -> float:
        """Q of a node: the mean value of its visits; 0 without a value."""
        valued = self.valued.get(id, 0)
        return self.total[id] / valued if valued else 0.0

    def back_up(self, path: Iterable[int], value: float | None, visits: int = 1) -> None:
        """Add visits and their value to each node of a path; a visit without a value does not change the mean."""
        for id in path:
            self.count[id] = self.count.get(id, 0) + visits
            if value is not None:
                self.valued[id] = self.valued.get(id, 0) + visits
                self.total[id] = self.total.get(id, 0.0) + value

    def copy(self) -> Visits:
        """A copy on which descents can be tried."""
        count, total, valued = dict(self.count), dict(self.total), dict(self.valued)
        return replace(self, count=count, total=total, valued=valued, closed=set(self.closed))

    def expand(self, parent: int, nodes: Sequence[Node], shape: Mcts) -> None:
        """Register the children of a node.

        Raises:
            ValueError: the prior is the likelihood, and a block has no log-probability.
        """
        self.children[parent] = [node.id for node in nodes]
        if shape.prior == "likelihood":
            self.priors |= {node.id: _likelihood(node) for node in nodes}

    def puct(self, id: int, parent: int, c_puct: float) -> float:
        """Q + c_puct * P * sqrt(N) / (1 + n) of a child, where N are the visits of its parent."""
        prior = self.priors.get(id)
        weight = c_puct / len(self.children[parent]) if prior is None else c_puct * prior
        return self.mean(id) + weight * math.sqrt(self.count[parent]) / (1 + self.count.get(id, 0))

    def descend(self, c_puct: float) -> list[int]:
        """Ids from the root to a node without children. Each is the open child with the highest PUCT, the first of equals."""
        path = [ROOT]
        while path[-1] in self.children:
            options = [id for id in self.children[path[-1]] if id not in self.closed]
            path.append(max(options, key=lambda id: self.puct(id, path[-1], c_puct)))
        return path

    def close(self, path: Sequence[int]) -> None:
        """Close the nodes of a path, from its end upwards, whose children are all closed. A node without children is closed."""
        for id in reversed(path):
            if not self.closed.issuperset(self.children.get(id, ())):
                return
            self.closed.add(id)


def _likelihood(node: Node) -> float:
    """exp(mean log-probability of the tokens): the geometric mean of their probabilities."""
    if node.logprob is None:
        raise ValueError(
            f"node {node.id} has no log-probability, which the prior 'likelihood' needs: use a policy engine that computes them, "
            "or the prior 'uniform'"
        )
    return math.exp(node.logprob)
