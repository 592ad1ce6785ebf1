"""Preference pairs from search trees (SVPO, arXiv 2406.10858): two blocks after one prefix, or two whole answers. Pure.

In: all trees of one problem, as rows of the table `trees`. Out: pairs, and a reason for each tree without one.

Of several siblings, the one with the highest Q is chosen against each sibling that is worse by the margin. So every distinct
mistake after a prefix is rejected once. Adjacent siblings would differ less than their Q is exact, and best against worst alone
would leave out the other mistakes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from vgs_ray.config import Pairs
from vgs_ray.labels.tree_values import REWARDS

Row = Mapping[str, Any]
"""A row of the table `trees`."""


class Side(NamedTuple):
    """The block or the answer on one side of a pair.

    Attributes:
        tree: position of its tree among those of the problem.
        node: id of the block, or of the last block of an answer.
        tokens: of the block or the answer.
        q: in [-1, 1].
        visits: of the node.
    """

    tree: int
    node: int
    tokens: list[int]
    q: float
    visits: int


class Preference(NamedTuple):
    """A pair: `chosen` and `rejected` both continue the prompt with the tokens `prefix`, which are `depth` blocks."""

    prefix: list[int]
    chosen: Side
    rejected: Side
    depth: int


def preferences(trees: Sequence[Row], config: Pairs) -> tuple[list[Preference], dict[int, str]]:
    """Pairs of one problem.

    Args:
        trees: all trees of the problem.
        config: kind, thresholds and the maximum number of pairs, of which those with the largest margins are kept.

    Returns:
        The pairs, and for the position of each tree without pairs the reason: `failed`, `no_answer`, `no_correct_answer`,
        `no_incorrect_answer`, `no_siblings` (no prefix has two blocks with Q and enough visits), `equal_q`, `below_margin`,
        `unmatched` (no answer of another outcome is left for its answers), or `over_limit`.
    """
    reasons = {position: _reason(tree) or "unmatched" for position, tree in enumerate(trees)}
    if config.kind == "solution":
        found = solution_pairs(trees)
    else:
        found = []
        for position, tree in enumerate(trees):
            # All prefixes of a tree without a correct answer lead nowhere, as far as it is known.
            if reasons[position] in ("unmatched", "no_incorrect_answer"):
                pairs, reason = step_pairs(tree, position, config)
                found += pairs
                reasons[position] = reason if reasons[position] == "unmatched" else reasons[position]
    kept = sorted(found, key=lambda pair: pair.rejected.q - pair.chosen.q)[: config.per_problem or None]
    reasons |= dict.fromkeys(_trees_of(found), "over_limit")
    return kept, {position: reason for position, reason in reasons.items() if position not in _trees_of(kept)}


def _trees_of(pairs: Sequence[Preference]) -> set[int]:
    return {side.tree for pair in pairs for side in (pair.chosen, pair.rejected)}


def _reason(tree: Row) -> str:
    """What a tree lacks to give pairs; empty if it has both a correct and an incorrect answer."""
    outcomes = set(tree["outcomes"])
    if tree["error"] is not None:
        return "failed"
    if not outcomes & {"correct", "incorrect", "incomplete"}:
        return "no_answer"
    if "correct" not in outcomes:
        return "no_correct_answer"
    return "" if outcomes & {"incorrect", "incomplete"} else "no_incorrect_answer"


def step_pairs(tree: Row, position: int, config: Pairs) -> tuple[list[Preference], str]:
    """Pairs of siblings of one tree, and the reason if there are none: `no_siblings`, `equal_q` or `below_margin`."""
    siblings = defaultdict[int, list[Side]](list)
    columns = zip(tree["parents"], tree["tokens"], tree["q"], tree["visits"], strict=True)
    for id, (parent, tokens, q, visits) in enumerate(columns, 1):
        if q is not None and visits >= config.min_visits:
            siblings[parent].append(Side(position, id, tokens, q, visits))
    families = {parent: sides for parent, sides in siblings.items() if len(sides) > 1}
    pairs, margins = [], []
    for parent, sides in families.items():
        best = max(sides, key=lambda side: (side.q, side.visits, -side.node))
        margins += [best.q - side.q for side in sides if side is not best]
        prefix, depth = _path(tree, parent)
        pairs += [
            Preference(prefix, best, side, depth)
            for side in sides
            if side.q < best.q and best.q - side.q >= config.min_margin
        ]
    return pairs, "" if pairs else "no_siblings" if not margins else "below_margin" if any(margins) else "equal_q"


def solution_pairs(trees: Sequence[Row]) -> list[Preference]:
    """Correct finished answers of a problem, each with an incorrect finished one. Equal answers count once.

    An answer is in one pair. The trees take turns, because answers of one tree are alike.
    """
    sides: dict[float, dict[tuple[int, ...], Side]] = {1.0: {}, -1.0: {}}
    for position, tree in enumerate(trees):
        for id, (state, outcome) in enumerate(zip(tree["states"], tree["outcomes"], strict=True), 1):
            reward = REWARDS[outcome] if state == "finished" else None
            if reward is not None:
                tokens, _ = _path(tree, id)
                sides[reward].setdefault(tuple(tokens), Side(position, id, tokens, reward, tree["visits"][id - 1]))
    correct, incorrect = (_alternating(sides[reward].values()) for reward in (1.0, -1.0))
    return [Preference([], *pair, 0) for pair in zip(correct, incorrect, strict=False)]


def _alternating(sides: Iterable[Side]) -> list[Side]:
    """The first side of each tree, then the second of each, and so on."""
    by_tree = defaultdict[int, list[Side]](list)
    for side in sides:
        by_tree[side.tree].append(side)
    return [side for round in zip_longest(*by_tree.values()) for side in round if side]


def _path(tree: Row, id: int) -> tuple[list[int], int]:
    """The tokens from the root to the end of a node, and the number of blocks."""
    blocks = [tree["tokens"][node - 1] for node in ancestry(tree, id)]
    return [token for block in blocks for token in block], len(blocks)


def ancestry(tree: Row, id: int) -> list[int]:
    """The ids of the nodes from below the root to a node."""
    nodes = []
    while id:
        nodes.append(id)
        id = tree["parents"][id - 1]
    return nodes[::-1]
