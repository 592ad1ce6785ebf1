"""Expansion of a prefix in Monte Carlo tree search: the blocks that continue it, with seeds of their places in the tree."""

from __future__ import annotations

from collections.abc import Sequence

from vgs_ray.config import Mcts
from vgs_ray.search.blocks import Block, BlockSampler
from vgs_ray.search.gather import gather_or_cancel
from vgs_ray.search.tree import Node


async def sample_children(sampler: BlockSampler, shape: Mcts, prefix: Node) -> list[Block]:
    """Sample the `shape.width` blocks that continue a prefix. At the maximum depth each of them ends its path."""
    round = prefix.round + 1
    blocks = await gather_or_cancel(
        sampler.sample(prefix, shape.block, round=round, lane=place) for place in _places(shape, prefix)
    )
    return [block.as_leaf() for block in blocks] if round + 1 >= shape.depth else blocks


def add_children(sampler: BlockSampler, shape: Mcts, prefix: Node, blocks: Sequence[Block]) -> list[Node]:
    """Add the blocks that `sample_children` returned to the tree."""
    return [
        sampler.add(prefix, block, group=0, round=prefix.round + 1, index=place)
        for place, block in zip(_places(shape, prefix), blocks, strict=True)
    ]


def _places(shape: Mcts, prefix: Node) -> range:
    """Numbers of a prefix's children among all possible blocks of their depth."""
    return range(prefix.index * shape.width, (prefix.index + 1) * shape.width)
