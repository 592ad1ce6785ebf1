"""Q-values of a finished search tree (AlphaMath, arXiv 2405.03553; SVPO, arXiv 2406.10858): one fold from the leaves up. Pure.

They equal the statistics of the search `Mcts(back_up="prefix")`: every expanded prefix was visited once, with its own value if
it has one, and every ended path once with its reward. Without a value model, Q is the mean reward of the ended paths below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

REWARDS = {"correct": 1.0, "incorrect": -1.0, "incomplete": -1.0, "unknown": None}
"""Reward of an ended path by its outcome. An unknown outcome is not backed up."""


class TreeValues(NamedTuple):
    """Q in [-1, 1] of each node, None if no visit had a value, and the number of visits. The first node is the root."""

    q: list[float | None]
    visits: list[int]


def tree_values(parents: Sequence[int], values: Sequence[float | None], outcomes: Sequence[str | None]) -> TreeValues:
    """Back up the values of a tree.

    Args:
        parents: id of the parent of each node below the root, whose ids are 1, 2, ... and larger than that of the parent.
        values: P(correct) of the value model in [0, 1] for each of these nodes; None without one.
        outcomes: of each path that ended; None for other nodes.

    Raises:
        ValueError: the arguments differ in length, or a node comes before its parent.
    """
    if not len(parents) == len(values) == len(outcomes):
        raise ValueError(
            f"{len(parents)} parents have {len(values)} values and {len(outcomes)} outcomes: pass one of each for each node"
        )
    nodes = len(parents) + 1
    visits, valued, total, expanded = [0] * nodes, [0] * nodes, [0.0] * nodes, {0, *parents}
    for id in range(nodes - 1, 0, -1):  # children come before their parents
        parent, value, outcome = parents[id - 1], values[id - 1], outcomes[id - 1]
        if not 0 <= parent < id:
            raise ValueError(f"node {id} has the parent {parent}; ids of parents are smaller: sort the nodes by id")
        own = REWARDS[outcome] if outcome else None if value is None else 2 * value - 1
        if (id in expanded and not outcome) or (outcome and own is not None):
            visits[id] += 1
            valued[id] += own is not None
            total[id] += own or 0.0
        visits[parent] += visits[id]
        valued[parent] += valued[id]
        total[parent] += total[id]
    visits[0] += 1
    return TreeValues([t / n if n else None for t, n in zip(total, valued, strict=True)], visits)
