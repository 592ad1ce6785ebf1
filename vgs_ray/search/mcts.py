"""Monte Carlo tree search over blocks, with a value model in place of roll-outs (as in arXiv 2406.10858 and AlphaMath).

A descent selects by PUCT, from the root to a prefix without children. It expands that prefix into `width` blocks and backs up the
value of each block, one visit each, to the block and all prefixes above it. A descent that ends at an answer backs up that
answer's value once more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from vgs_ray.config import Mcts, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Policy, Value
from vgs_ray.search.blocks import Block, BlockSampler, check_positive
from vgs_ray.search.gather import gather_or_cancel
from vgs_ray.search.tree import ROOT, Listener, Node, Tree


@dataclass
class Visits:
    """Visit counts and values of the nodes.

    Attributes:
        count: visits by node id; the root's count is the number of all visits.
        total: sum of the values of those visits, by node id.
        children: ids of the children of each expanded node, in order.
    """

    count: dict[int, int] = field(default_factory=lambda: {ROOT: 0})
    total: dict[int, float] = field(default_factory=lambda: {ROOT: 0.0})
    children: dict[int, list[int]] = field(default_factory=dict)

    def mean(self, id: int) -> float:
        """Q of a node: the mean value of its visits, in [0, 1]; 0 before the first visit."""
        return self.total[id] / self.count[id] if self.count[id] else 0.0

    def back_up(self, path: list[int], value: float, visits: int = 1) -> None:
        """Add a value and its visits to each node of a path."""
        for id in path:
            self.count[id] = self.count.get(id, 0) + visits
            self.total[id] = self.total.get(id, 0.0) + value

    def best_child(self, parent: int, c_puct: float) -> int:
        """The child with the highest Q + c_puct * P * sqrt(N) / (1 + n); the first of equals.

        The blocks are samples of the policy, so each has the same prior P = 1 / width.
        """
        options = self.children[parent]
        exploration = c_puct / len(options) * math.sqrt(self.count[parent])
        return max(options, key=lambda id: self.mean(id) + exploration / (1 + self.count[id]))

    def descend(self, c_puct: float) -> list[int]:
        """Ids from the root to a node without children."""
        path = [ROOT]
        while path[-1] in self.children:
            path.append(self.best_child(path[-1], c_puct))
        return path


async def mcts(
    policy: Policy,
    value: Value,
    prompt: Tokens,
    *,
    shape: Mcts,
    sampling: Sampling,
    seed: int,
    listen: Listener | None = None,
) -> Tree:
    """Grow a tree by `shape.simulations` descents.

    Descents run in waves of `shape.parallel`. The paths of a wave are selected one after the other, each with the earlier paths
    of the wave as virtual visits of value 0; then their ends are expanded concurrently. So the tree is a function of the seed, in
    whatever order the engines respond. If no path has ended, the most visited path is continued to its end.

    Args:
        policy: samples the blocks.
        value: scores the blocks.
        prompt: tokens that each answer continues.
        shape: of the search; a block also ends at `sampling.stop_token_ids`.
        sampling: of the policy; `max_tokens` limits a whole response.
        seed: of this problem; a block has the seed of its path (depth, place among all possible blocks of that depth).
        listen: called with each node when it is added.

    Raises:
        ValueError: a size is below 1.
    """
    sizes = {name: getattr(shape, name) for name in ("simulations", "width", "depth", "block", "parallel")}
    check_positive(**sizes, max_tokens=sampling.max_tokens)
    tree = Tree(prompt, listen)
    sampler = BlockSampler(policy, value, tree, sampling, seed)
    visits = Visits()
    for descents in _waves(shape):
        paths = _select_paths(visits, descents, shape.c_puct)
        ends = dict.fromkeys(path[-1] for path in paths)  # two descents may end at the same node
        prefixes = [tree.nodes[id] for id in ends if tree.nodes[id].state == "kept"]
        expanded = await gather_or_cancel(_expand(sampler, shape, prefix) for prefix in prefixes)
        for prefix, blocks in zip(prefixes, expanded, strict=True):
            _add(sampler, prefix, blocks, _places(shape, prefix).start)
        _back_up(visits, tree, paths)
    if not tree.leaves():
        await _finish_most_visited(sampler, visits)
    return tree


def visits(tree: Tree, shape: Mcts) -> Visits:
    """Recompute the visits of a finished tree: repeat its descents over the stored blocks, without an engine."""
    replayed = Visits()
    for descents in _waves(shape):
        _back_up(replayed, tree, _select_paths(replayed, descents, shape.c_puct))
    return replayed


def _waves(shape: Mcts) -> Iterator[int]:
    """Number of descents of each wave."""
    for first in range(0, shape.simulations, shape.parallel):
        yield min(shape.parallel, shape.simulations - first)


def _select_paths(visits: Visits, descents: int, c_puct: float) -> list[list[int]]:
    """Paths of the descents of a wave. The virtual visits are removed before the function returns."""
    paths = []
    for _ in range(descents):
        path = visits.descend(c_puct)
        visits.back_up(path, 0.0)
        paths.append(path)
    for path in paths:
        visits.back_up(path, 0.0, visits=-1)
    return paths


def _back_up(visits: Visits, tree: Tree, paths: list[list[int]]) -> None:
    """Back up the values below each path, in the order of the paths."""
    children: dict[int, list[Node]] = {path[-1]: [] for path in paths}
    for node in tree.nodes[1:]:
        if node.parent in children:
            children[node.parent].append(node)
    for path in paths:
        last, nodes = path[-1], sorted(children[path[-1]], key=lambda node: node.index)
        if last in visits.children:  # an earlier descent of this wave ended here and has backed up these blocks
            continue
        if not nodes:
            visits.back_up(path, tree.nodes[last].value or 0.0)
            continue
        visits.children[last] = [node.id for node in nodes]
        for node in nodes:
            visits.back_up([*path, node.id], node.value or 0.0)  # a missing value counts as 0


async def _expand(sampler: BlockSampler, shape: Mcts, prefix: Node) -> list[Block]:
    """Sample the blocks that continue a prefix."""
    round = prefix.round + 1
    blocks = await gather_or_cancel(
        sampler.sample(prefix, shape.block, round=round, lane=place) for place in _places(shape, prefix)
    )
    return [block.as_leaf() for block in blocks] if round + 1 >= shape.depth else blocks


def _places(shape: Mcts, prefix: Node) -> range:
    """Numbers of a prefix's children among all possible blocks of their depth."""
    return range(prefix.index * shape.width, (prefix.index + 1) * shape.width)


def _add(sampler: BlockSampler, prefix: Node, blocks: list[Block], first: int) -> None:
    for index, block in enumerate(blocks, first):
        sampler.add(prefix, block, group=0, round=prefix.round + 1, index=index)


async def _finish_most_visited(sampler: BlockSampler, visits: Visits) -> None:
    """Continue the most visited path to its end, so that a search without a finished path has an answer."""
    last = ROOT
    while last in visits.children:
        last = max(visits.children[last], key=lambda id: visits.count[id])
    prefix = sampler.tree.nodes[last]
    block = await sampler.sample(prefix, sampler.sampling.max_tokens, round=prefix.round + 1, lane=-1)
    _add(sampler, prefix, [block.as_leaf()], -1)
