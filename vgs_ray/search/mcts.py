"""Monte Carlo tree search over blocks, with a value model in place of roll-outs (as in arXiv 2406.10858 and AlphaMath).

In: a `Policy`, a `Value`, the prompt's tokens and a shape. Out: a `Tree` whose finished paths vote; `visits` is a fold over it.
A descent goes from the root by PUCT to a prefix without continuations, expands it into `width` blocks, and counts the value of
each block as one visit for the block and for all prefixes above it. A descent that ends in an answer visits that once more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from vgs_ray.config import Mcts, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Policy, Value
from vgs_ray.search.explore import Candidate, Extender, at_least_one, together
from vgs_ray.search.tree import ROOT, Listener, Node, State, Tree

UNSCORED = 0.0
"""Value of a block whose score is missing or NaN: nothing speaks for it."""


@dataclass
class Visits:
    """What a search knows of each node.

    Attributes:
        count: visits by node id; that of the root is the number of all visits.
        total: sum of the values of those visits.
        children: ids of the continuations, in their order.
    """

    count: dict[int, int] = field(default_factory=lambda: {ROOT: 0})
    total: dict[int, float] = field(default_factory=lambda: {ROOT: 0.0})
    children: dict[int, list[int]] = field(default_factory=dict)

    def mean(self, id: int) -> float:
        """Q of a node: the mean value of its visits, in [0, 1]; 0 before the first."""
        return self.total[id] / self.count[id] if self.count[id] else 0.0

    def back_up(self, path: list[int], value: float, visits: int = 1) -> None:
        """Count a value for every node of a path."""
        for id in path:
            self.count[id] = self.count.get(id, 0) + visits
            self.total[id] = self.total.get(id, 0.0) + value

    def best_child(self, parent: int, c_puct: float) -> int:
        """The continuation with the highest Q + c_puct * P * sqrt(N) / (1 + n); the first of equals.

        The blocks are samples of the policy, so each has the same prior P = 1 / width.
        """
        options = self.children[parent]
        spread = c_puct / len(options) * math.sqrt(self.count[parent])
        return max(options, key=lambda id: self.mean(id) + spread / (1 + self.count[id]))

    def descend(self, c_puct: float) -> list[int]:
        """Ids from the root to a node without continuations."""
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

    `shape.parallel` descents are chosen one after the other, each with the earlier ones counted as visits of value 0, and then
    expand their prefixes side by side. So the tree is a function of the seed, whatever answers first. When no path has
    ended, the most visited one is continued to its end.

    Args:
        shape: of the search; a block also ends at `sampling.stop_token_ids`.
        sampling: of the policy; `max_tokens` limits the whole response.
        seed: of this problem; a block has the seed of its path (depth, place among all possible blocks of that depth).
        listen: called with each node as it is added.

    Raises:
        ValueError: a size is below 1.
    """
    sizes = {name: getattr(shape, name) for name in ("simulations", "width", "depth", "block", "parallel")}
    at_least_one(**sizes, max_tokens=sampling.max_tokens)
    tree = Tree(prompt, [listen] if listen else [])
    search = Extender(policy, value, tree, sampling, seed)
    seen = Visits()
    for wave in _waves(shape):
        paths = _choose(seen, wave, shape.c_puct)
        ends = dict.fromkeys(path[-1] for path in paths)  # descents that met are one
        fresh = [tree.nodes[id] for id in ends if tree.nodes[id].state == "kept"]
        grown = await together(_expand(search, shape, prefix) for prefix in fresh)
        for prefix, made in zip(fresh, grown, strict=True):
            _add(tree, prefix, made, _places(shape, prefix).start)
        _count(seen, tree, paths)
    if not tree.leaves():
        await _finish(search, seen)
    return tree


def visits(tree: Tree, shape: Mcts) -> Visits:
    """Visits and values of a finished tree: the descents again, with the blocks that are there. No engine."""
    seen = Visits()
    for wave in _waves(shape):
        _count(seen, tree, _choose(seen, wave, shape.c_puct))
    return seen


def _waves(shape: Mcts) -> Iterator[int]:
    """How many descents run side by side, again and again."""
    for begin in range(0, shape.simulations, shape.parallel):
        yield min(shape.parallel, shape.simulations - begin)


def _choose(seen: Visits, descents: int, c_puct: float) -> list[list[int]]:
    """Paths of some descents, each with the earlier ones as visits without value, which are then taken back."""
    paths = []
    for _ in range(descents):
        path = seen.descend(c_puct)
        seen.back_up(path, 0.0)
        paths.append(path)
    for path in paths:
        seen.back_up(path, 0.0, visits=-1)
    return paths


def _count(seen: Visits, tree: Tree, paths: list[list[int]]) -> None:
    """Back up what the descents found, in their order."""
    below: dict[int, list[Node]] = {path[-1]: [] for path in paths}
    for node in tree.nodes[1:]:
        if node.parent in below:
            below[node.parent].append(node)
    for path in paths:
        last, found = path[-1], sorted(below[path[-1]], key=lambda node: node.index)
        if last in seen.children:  # two descents of one wave met; the first one has counted its blocks
            continue
        if not found:
            seen.back_up(path, _value(tree.nodes[last]))
            continue
        seen.children[last] = [node.id for node in found]
        for node in found:
            seen.back_up([*path, node.id], _value(node))


def _value(node: Node) -> float:
    return UNSCORED if node.value is None else node.value


async def _expand(search: Extender, shape: Mcts, prefix: Node) -> list[Candidate]:
    """Sample the blocks that continue a prefix."""
    round = prefix.round + 1
    blocks = await together(search.extend(prefix, shape.block, round=round, lane=at) for at in _places(shape, prefix))
    deepest = round + 1 >= shape.depth
    return [made._replace(state="length") if deepest and made.state == "kept" else made for made in blocks]


def _places(shape: Mcts, prefix: Node) -> range:
    """Numbers of a prefix's continuations among all possible blocks of their depth."""
    return range(prefix.index * shape.width, (prefix.index + 1) * shape.width)


def _add(tree: Tree, prefix: Node, made: list[Candidate], first: int) -> None:
    for index, block in enumerate(made, first):
        tree.add(prefix.id, group=0, round=prefix.round + 1, index=index, **block._asdict())


async def _finish(search: Extender, seen: Visits) -> None:
    """Continue the most visited path to its end: a search that ran out of descents still has an answer."""
    last = ROOT
    while last in seen.children:
        last = max(seen.children[last], key=lambda id: seen.count[id])
    prefix = search.tree.nodes[last]
    made = await search.extend(prefix, search.sampling.max_tokens, round=prefix.round + 1, lane=-1)
    state: State = "finished" if made.state == "finished" else "length"
    _add(search.tree, prefix, [made._replace(state=state)], -1)
