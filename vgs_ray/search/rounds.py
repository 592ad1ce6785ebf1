"""Searches in rounds: the blocks of a round are shared among the live prefixes by a rule on their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vgs_ray.config import ParticleFilter, Rebase, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Policy, Value
from vgs_ray.search.blocks import Block, BlockSampler, check_positive
from vgs_ray.search.gather import gather_or_cancel
from vgs_ray.search.tree import Listener, Node, Tree

Share = Callable[[Sequence[float], int, int], list[int]]
"""(values of the live prefixes, blocks, round) -> blocks of the next round for each prefix."""


async def search_rounds(
    policy: Policy,
    value: Value,
    prompt: Tokens,
    *,
    shape: Rebase | ParticleFilter,
    share: Share,
    sampling: Sampling,
    seed: int,
    listen: Listener | None = None,
) -> Tree:
    """Search in rounds that share `shape.width` blocks among the live prefixes.

    The first round samples `width` blocks from the prompt. Each answer that ends lowers the width by one. `share` divides the
    rest; a prefix that gets no block is pruned. A missing value counts as 0.

    Args:
        policy: samples the blocks.
        value: scores the blocks.
        prompt: tokens that each answer continues.
        shape: of the search; a block also ends at `sampling.stop_token_ids`.
        share: divides the blocks of a round.
        sampling: of the policy; `max_tokens` limits a whole response.
        seed: of this problem; a block has the seed of its place (round, number within the round).
        listen: called with each node when it is added.

    Raises:
        ValueError: a size is below 1.
    """
    check_positive(width=shape.width, block=shape.block, max_tokens=sampling.max_tokens)
    tree = Tree(prompt, listen)
    sampler = BlockSampler(policy, value, tree, sampling, seed)
    parents, width, round = [tree.root] * shape.width, shape.width, 0
    while parents:
        blocks = await gather_or_cancel(
            sampler.sample(parent, shape.block, round=round, lane=lane) for lane, parent in enumerate(parents)
        )
        live = [index for index, block in enumerate(blocks) if block.state == "kept"]
        width -= len(blocks) - len(live)
        counts = share([blocks[index].value or 0.0 for index in live], width, round)
        parents = _add_round(sampler, parents, blocks, dict(zip(live, counts, strict=True)), round)
        round += 1
    return tree


def _add_round(
    sampler: BlockSampler, parents: Sequence[Node], blocks: Sequence[Block], shares: dict[int, int], round: int
) -> list[Node]:
    """Add the blocks to the tree and return the parent of each block of the next round."""
    next_parents = []
    for index, (parent, block) in enumerate(zip(parents, blocks, strict=True)):
        pruned = block.state == "kept" and not shares[index]
        added = block._replace(state="pruned") if pruned else block
        node = sampler.add(parent, added, group=0, round=round, index=index)
        next_parents += [node] * shares.get(index, 0)
    return next_parents
