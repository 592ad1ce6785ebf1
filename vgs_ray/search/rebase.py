"""Reward-balanced search (REBASE, arXiv 2408.00724): prefixes with higher values get more blocks of the next round."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vgs_ray.config import Rebase, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Policy, Value
from vgs_ray.search.blocks import Block, BlockSampler, check_positive
from vgs_ray.search.gather import gather_or_cancel
from vgs_ray.search.tree import Listener, Node, Tree


async def rebase(
    policy: Policy,
    value: Value,
    prompt: Tokens,
    *,
    shape: Rebase,
    sampling: Sampling,
    seed: int,
    listen: Listener | None = None,
) -> Tree:
    """Search in rounds that share `shape.width` blocks among the live prefixes.

    The first round samples `width` blocks from the prompt. Each answer that ends lowers the width by one. `allocate_blocks`
    shares the rest; a prefix that gets no block is pruned.

    Args:
        policy: samples the blocks.
        value: scores the blocks.
        prompt: tokens that each answer continues.
        shape: of the search; a block also ends at `sampling.stop_token_ids`.
        sampling: of the policy; `max_tokens` limits a whole response.
        seed: of this problem; a block has the seed of its place (round, number within the round).
        listen: called with each node when it is added.

    Raises:
        ValueError: a size is below 1, or the temperature is not positive.
    """
    check_positive(width=shape.width, block=shape.block, max_tokens=sampling.max_tokens)
    tree = Tree(prompt, listen)
    sampler = BlockSampler(policy, value, tree, sampling, seed)
    parents, width, round = [tree.root] * shape.width, shape.width, 0
    while parents:
        blocks = await gather_or_cancel(
            sampler.sample(parent, shape.block, round=round, lane=lane) for lane, parent in enumerate(parents)
        )
        width -= sum(block.state != "kept" for block in blocks)
        parents = _add_round(sampler, parents, blocks, _shares(blocks, width, shape.temperature), round)
        round += 1
    return tree


def _add_round(
    sampler: BlockSampler, parents: Sequence[Node], blocks: Sequence[Block], shares: dict[int, int], round: int
) -> list[Node]:
    """Add the blocks to the tree and return the parent of each block of the next round."""
    next_parents = []
    for index, (parent, block) in enumerate(zip(parents, blocks, strict=True)):
        pruned = block.state == "kept" and not shares[index]
        node = sampler.add(
            parent, block._replace(state="pruned") if pruned else block, group=0, round=round, index=index
        )
        next_parents += [node] * shares.get(index, 0)
    return next_parents


def _shares(blocks: Sequence[Block], width: int, temperature: float) -> dict[int, int]:
    """Blocks of the next round for each live block, by its index; a missing value counts as 0."""
    live = [index for index, block in enumerate(blocks) if block.state == "kept"]
    return dict(
        zip(live, allocate_blocks([blocks[index].value or 0.0 for index in live], width, temperature), strict=True)
    )


def allocate_blocks(values: Sequence[float], blocks: int, temperature: float) -> list[int]:
    """Divide `blocks` in proportion to exp(value / temperature), in whole numbers that add up to `blocks`.

    Shares are rounded down. The remaining blocks go to the largest remainders, and of equal remainders to the first.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be positive: raise it")
    if not values:
        return []
    top = max(values)
    weights = [math.exp((value - top) / temperature) for value in values]
    exact = [blocks * weight / math.fsum(weights) for weight in weights]
    shares = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(values)), key=lambda index: (shares[index] - exact[index], index))
    for index in by_remainder[: blocks - sum(shares)]:
        shares[index] += 1
    return shares
