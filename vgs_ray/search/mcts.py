"""Monte Carlo tree search over blocks, with a value model in place of roll-outs.

With `back_up="blocks"` a descent selects by PUCT, from the root to a prefix without children. It expands that prefix into `width`
blocks and backs up the value of each block, one visit each, to the block and all prefixes above it. A descent that ends at an
answer backs up that answer's value once more. `back_up="prefix"` is in `vgs_ray.search.alphamath`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from vgs_ray.config import Mcts, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Policy, Value
from vgs_ray.search import alphamath
from vgs_ray.search.alphamath import Reward
from vgs_ray.search.blocks import BlockSampler, check_positive
from vgs_ray.search.expansion import add_children, sample_children
from vgs_ray.search.gather import gather_or_cancel
from vgs_ray.search.tree import ROOT, Listener, Node, Tree
from vgs_ray.search.visits import Visits


async def mcts(
    policy: Policy,
    value: Value | None,
    prompt: Tokens,
    *,
    shape: Mcts,
    sampling: Sampling,
    seed: int,
    listen: Listener | None = None,
    reward: Reward | None = None,
) -> Tree:
    """Grow a tree by `shape.simulations` descents.

    Descents run in waves of `shape.parallel`. The paths of a wave are selected one after the other, each with the earlier paths
    of the wave as virtual visits of the lowest value; then their ends are expanded concurrently. So the tree is a function of the
    seed, in whatever order the engines respond. If no path has ended, the most visited path is continued to its end.

    Args:
        policy: samples the blocks.
        value: scores the blocks; None leaves them without values.
        prompt: tokens that each answer continues.
        shape: of the search; a block also ends at `sampling.stop_token_ids`.
        sampling: of the policy; `max_tokens` limits a whole response.
        seed: of this problem; a block has the seed of its path (depth, place among all possible blocks of that depth).
        listen: called with each node when it is added.
        reward: rewards finished answers, while training data is built; for `back_up="prefix"` only. Then a path is not continued
            after the search.

    Raises:
        ValueError: a size is below 1, or `reward` does not fit the shape.
    """
    sizes = {name: getattr(shape, name) for name in ("simulations", "width", "depth", "block", "parallel")}
    check_positive(**sizes, max_tokens=sampling.max_tokens)
    tree = Tree(prompt, listen)
    sampler = BlockSampler(policy, value, tree, sampling, seed)
    if shape.back_up == "prefix":
        await alphamath.grow(sampler, shape, reward)
    elif reward:
        raise ValueError("rewards are backed up only with back_up='prefix', and it is 'blocks': change the shape")
    else:
        await _grow(sampler, shape)
    if not (tree.leaves() or reward):
        await _finish_most_visited(sampler, visits(tree, shape))
    return tree


async def _grow(sampler: BlockSampler, shape: Mcts) -> None:
    tree, visits = sampler.tree, Visits()
    for descents in _waves(shape):
        paths = _select_paths(visits, descents, shape.c_puct)
        ends = dict.fromkeys(path[-1] for path in paths)  # two descents may end at the same node
        prefixes = [tree.nodes[id] for id in ends if tree.nodes[id].state == "kept"]
        expanded = await gather_or_cancel(sample_children(sampler, shape, prefix) for prefix in prefixes)
        for prefix, blocks in zip(prefixes, expanded, strict=True):
            add_children(sampler, shape, prefix, blocks)
        _back_up(visits, tree, paths, shape)


def visits(tree: Tree, shape: Mcts, rewards: Mapping[int, float | None] | None = None) -> Visits:
    """Recompute the visits of a finished tree: repeat its descents over the stored blocks, without an engine.

    Args:
        tree: of a search with this shape.
        shape: of the search.
        rewards: of the finished answers by node id, if the search had rewards; None for an unknown outcome.
    """
    if shape.back_up == "prefix":
        return alphamath.replay(tree, shape, rewards)
    replayed = Visits()
    for descents in _waves(shape):
        _back_up(replayed, tree, _select_paths(replayed, descents, shape.c_puct), shape)
    return replayed


def highest_q_leaf(tree: Tree, shape: Mcts, rewards: Mapping[int, float | None] | None = None) -> Node | None:
    """The answer of a search as AlphaMath gives it: walk from the root along the highest Q, the first of equals.

    The walk enters only prefixes of finished answers, or of answers at a limit if none is finished. It works on stored trees.

    Args:
        tree, shape, rewards: as for `visits`.

    Returns:
        The leaf; None for a tree without leaves.
    """
    answers = [leaf for leaf in tree.leaves() if leaf.state == "finished"] or tree.leaves()
    above: set[int] = set()
    for leaf in answers:
        above.update(tree.ancestors(leaf.id))
    seen, children, at = visits(tree, shape, rewards), tree.children(), tree.root
    while options := [node for node in children[at.id] if node.id in above]:
        at = max(options, key=lambda node: seen.mean(node.id))
    return at if answers else None


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


def _back_up(visits: Visits, tree: Tree, paths: list[list[int]], shape: Mcts) -> None:
    """Back up the values below each path, in the order of the paths."""
    children = tree.children()
    for path in paths:
        last, nodes = path[-1], children[path[-1]]
        if last in visits.children:  # an earlier descent of this wave ended here and has backed up these blocks
            continue
        if not nodes:
            visits.back_up(path, tree.nodes[last].value or 0.0)
            continue
        visits.expand(last, nodes, shape)
        for node in nodes:
            visits.back_up([*path, node.id], node.value or 0.0)  # a missing value counts as 0


async def _finish_most_visited(sampler: BlockSampler, visits: Visits) -> None:
    """Continue the most visited path to its end, so that a search without a finished path has an answer."""
    last = ROOT
    while last in visits.children:
        last = max(visits.children[last], key=lambda id: visits.count.get(id, 0))
    prefix, sampling = sampler.tree.nodes[last], replace(sampler.sampling, stop_token_ids=())
    to_end = replace(sampler, sampling=sampling)
    block = await to_end.sample(prefix, sampling.max_tokens, round=prefix.round + 1, lane=-1)
    sampler.add(prefix, block.as_leaf(), group=0, round=prefix.round + 1, index=-1)
