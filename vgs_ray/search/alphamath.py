"""Monte Carlo tree search with one value a simulation, as in AlphaMath (arXiv 2405.03553; Super_MARIO, agents/mcts.py).

A simulation selects an open prefix without children by PUCT, expands it, and backs up the prefix's own value; the children are
not evaluated. Values are in [-1, 1]: 2 P(correct) - 1 of the value model. A child that ends its path is backed up at once and
closed: an answer by its reward, or by its value if there are no rewards; a path that reached a limit by -1. A prefix whose
children are all closed is closed too.

Two differences: equal blocks of one prefix are kept once, because copies would share the visits, and the others have the state
`pruned`; a prefix without a value counts as a visit only, because a value of 0 would pull the mean of its outcomes to 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from vgs_ray.config import Mcts
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Score, Value
from vgs_ray.search.blocks import Block, BlockSampler
from vgs_ray.search.expansion import add_children, sample_children
from vgs_ray.search.gather import gather_or_cancel
from vgs_ray.search.tree import ROOT, Node, Tree
from vgs_ray.search.visits import Visits

Reward = Callable[[Tokens], Awaitable[float | None]]
"""The reward of a finished answer in [-1, 1], given its tokens without the prompt; None if the outcome is unknown."""

LOWEST = -1.0
"""Value of a path that reached the limit of depth or tokens, and of a virtual visit."""


async def grow(sampler: BlockSampler, shape: Mcts, reward: Reward | None) -> None:
    """Grow the sampler's tree by `shape.simulations` simulations, or until all paths have ended.

    Without a score from the policy's engine, the value model scores the expanded prefixes, and finished answers if there is no
    `reward`.
    """
    visits, rewards = Visits(), None if reward is None else dict[int, float | None]()
    while paths := _select_wave(visits, shape, len(visits.children)):
        prefixes = [sampler.tree.nodes[path[-1]] for path in paths]
        expanded = await gather_or_cancel(_expand(sampler, shape, prefix, reward) for prefix in prefixes)
        for path, prefix, expansion in zip(paths, prefixes, expanded, strict=True):
            if expansion.score:
                sampler.tree.set_score(prefix.id, expansion.score)
            nodes = add_children(sampler, shape, prefix, expansion.blocks)
            if rewards is not None:
                rewards |= {node.id: each for node, each in zip(nodes, expansion.rewards, strict=True)}
            _back_up(visits, sampler.tree, path, nodes, shape, rewards)


def replay(tree: Tree, shape: Mcts, rewards: Mapping[int, float | None] | None) -> Visits:
    """The visits of a stored tree. Simulations that it does not contain are left out.

    Args:
        tree: of a search with this shape.
        shape: of the search.
        rewards: of the finished answers by node id, if the search had rewards; None if it backed up their values.
    """
    visits, children = Visits(), tree.children()
    while paths := _select_wave(visits, shape, len(visits.children)):
        for path in paths:
            if not children[path[-1]]:
                return visits
            _back_up(visits, tree, path, children[path[-1]], shape, rewards)
    return visits


class _Expansion(NamedTuple):
    """The score of a prefix, the blocks that continue it, and the reward of each block; None for a block without one."""

    score: Score | None
    blocks: list[Block]
    rewards: list[float | None]


async def _expand(sampler: BlockSampler, shape: Mcts, prefix: Node, reward: Reward | None) -> _Expansion:
    value, response = sampler.value, sampler.tree.path(prefix.id)

    async def end(block: Block) -> tuple[Block, float | None]:
        if block.state == "finished" and reward:
            return block, await reward(response + block.tokens)
        if block.state == "finished" and value and block.value is None:
            block = block._replace(score=await value.score(sampler.tree.prompt + response + block.tokens))
        return block, None

    unscored = replace(sampler, value=None)  # keeps the scores of an engine that is both policy and value
    score, blocks = await asyncio.gather(_score(sampler.tree, prefix, value), sample_children(unscored, shape, prefix))
    ended = await gather_or_cancel(map(end, _without_copies(blocks)))
    return _Expansion(score, [block for block, _ in ended], [each for _, each in ended])


def _without_copies(blocks: Sequence[Block]) -> list[Block]:
    """The blocks, with the state `pruned` for each that is equal to an earlier one."""
    first = {block.tokens: index for index, block in reversed(list(enumerate(blocks)))}
    return [
        block if first[block.tokens] == index else block._replace(state="pruned") for index, block in enumerate(blocks)
    ]


async def _score(tree: Tree, prefix: Node, value: Value | None) -> Score | None:
    """The score of a prefix that has none. The prompt's is not needed: selection compares only its children."""
    if value is None or prefix.value is not None or prefix.id == ROOT:
        return None
    return await value.score(tree.prompt + tree.path(prefix.id))


def _select_wave(visits: Visits, shape: Mcts, done: int) -> list[list[int]]:
    """Paths of the next simulations, at most `shape.parallel`, to different prefixes. Empty at the end of the search.

    Each path counts as a visit of the lowest value for the later ones.
    """
    trial = visits.copy()
    paths: list[list[int]] = []
    while len(paths) < min(shape.parallel, shape.simulations - done) and ROOT not in trial.closed:
        paths.append(trial.descend(shape.c_puct))
        trial.back_up(paths[-1], LOWEST)
        trial.close(paths[-1])
    return paths


def _back_up(
    visits: Visits,
    tree: Tree,
    path: list[int],
    nodes: Sequence[Node],
    shape: Mcts,
    rewards: Mapping[int, float | None] | None,
) -> None:
    """Add the children of the path's end, back up those that ended, and the value of the end itself."""
    kept = [node for node in nodes if node.state != "pruned"]
    visits.expand(path[-1], kept, shape)
    for node in kept:
        if node.state == "kept":
            continue
        value = LOWEST if node.state == "length" else _signed(node) if rewards is None else rewards.get(node.id)
        if value is not None or rewards is None:
            visits.back_up([*path, node.id], value)
        visits.closed.add(node.id)
    visits.back_up(path, _signed(tree.nodes[path[-1]]))
    visits.close(path)


def _signed(node: Node) -> float | None:
    """The value of a node in [-1, 1]."""
    return None if node.value is None else 2 * node.value - 1
