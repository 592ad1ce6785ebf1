"""One answer from a guided search: the one with the highest value."""

from __future__ import annotations

import math

from vgs_ray import config
from vgs_ray.config import Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Policy, Value
from vgs_ray.search.beam import beam
from vgs_ray.search.tree import Node


async def best_answer(
    policy: Policy,
    value: Value,
    prompt: Tokens,
    shape: config.Beam,
    sampling: Sampling,
    seed: int,
    cache_block: int = 1,
) -> Completion:
    """Search, and return the answer with the highest value in place of a sample of the policy.

    A finished answer comes before one that was cut off at the token limit, and a missing value ranks last.

    Args:
        policy, value, prompt, sampling, seed, cache_block: as for `beam`.
        shape: of the search.
    """
    tree = await beam(policy, value, prompt, beam=shape, sampling=sampling, seed=seed, cache_block=cache_block)

    def rank(leaf: Node) -> tuple[bool, float]:
        return leaf.state == "finished", -math.inf if leaf.value is None else leaf.value

    best = max(tree.leaves(), key=rank)
    finished = best.state == "finished"
    return Completion(tree.path(best.id), finished, "stop" if finished else "length", math.nan)
