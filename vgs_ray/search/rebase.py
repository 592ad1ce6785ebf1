"""Reward-balanced search (REBASE, arXiv 2408.00724): prefixes with higher values get more blocks of the next round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vgs_ray.config import Rebase
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Policy, Value
from vgs_ray.search.rounds import search_rounds
from vgs_ray.search.tree import Tree


async def rebase(policy: Policy, value: Value, prompt: Tokens, *, shape: Rebase, **others: Any) -> Tree:
    """Search in rounds, in which `allocate_blocks` divides the blocks.

    Args:
        policy, value, prompt, shape: as in `search_rounds`.
        others: its other arguments.

    Raises:
        ValueError: a size is below 1, or the temperature is not positive.
    """

    def share(values: Sequence[float], blocks: int, round: int) -> list[int]:
        return allocate_blocks(values, blocks, shape.temperature)

    return await search_rounds(policy, value, prompt, shape=shape, share=share, **others)


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
