"""Targets of the value of a policy (SVPO, arXiv 2406.10858): paths of search trees with Q at the ends of their blocks. Pure.

In: a row of the table `trees`. Out: paths from the root, which together contain each node that has Q.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from vgs_ray.labels.preferences import Row, ancestry
from vgs_ray.labels.tree_values import REWARDS


class ValuePath(NamedTuple):
    """A prompt and the blocks of a path.

    Attributes:
        node: id of the last node.
        tokens: of the prompt and the path.
        positions: of the last token of each block with a target, increasing.
        q: targets at these positions, in [-1, 1].
        outcome: of the path; None if it has not ended.
    """

    node: int
    tokens: list[int]
    positions: list[int]
    q: list[float]
    outcome: str | None


def value_paths(tree: Row, kind: Literal["step", "solution"]) -> list[ValuePath]:
    """The paths of a tree; none if it failed.

    Args:
        tree: a row of the table `trees`.
        kind: `step` gives a path to each node with Q below which no node has Q, with Q at all its nodes. `solution` gives each
            finished answer with a verdict, with its reward at its end alone.
    """
    if tree["error"] is not None:
        return []
    ends = zip(tree["states"], tree["outcomes"], strict=True)
    rewards = [REWARDS[outcome] if state == "finished" else None for state, outcome in ends]
    targets: Sequence[float | None] = tree["q"] if kind == "step" else rewards
    inner = {parent for parent, target in zip(tree["parents"], targets, strict=True) if target is not None}
    return [_path(tree, id, targets) for id, target in enumerate(targets, 1) if target is not None and id not in inner]


def _path(tree: Row, node: int, targets: Sequence[float | None]) -> ValuePath:
    """The path to a node, with the targets of the nodes that have one."""
    tokens, positions, q = list(tree["prompt"]), [], []
    for id in ancestry(tree, node):
        tokens += tree["tokens"][id - 1]
        target = targets[id - 1]
        if target is not None:
            positions.append(len(tokens) - 1)
            q.append(target)
    return ValuePath(node, tokens, positions, q, tree["outcomes"][node - 1])
