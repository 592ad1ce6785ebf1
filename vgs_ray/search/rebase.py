"""Reward-balanced search (REBASE, arXiv 2408.00724): better prefixes get more of a round's blocks, and few are dropped.

In: a `Policy`, a `Value`, the prompt's tokens and a shape. Out: a `Tree` whose finished paths vote.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from vgs_ray.config import Rebase, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Policy, Score, Value
from vgs_ray.search.explore import Extender, at_least_one, together
from vgs_ray.search.tree import ROOT, Listener, Tree


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
    """Grow a tree whose rounds share `shape.width` blocks among the live prefixes by their values.

    The first round has `width` blocks from the prompt. An answer that has ended takes one of them with it; the rest are shared
    by `allot`. A prefix that gets none is pruned.

    Args:
        shape: of the search; a block also ends at `sampling.stop_token_ids`.
        sampling: of the policy; `max_tokens` limits the whole response.
        seed: of this problem; a block has the seed of its place (round, number among the round's blocks).
        listen: called with each node as it is added.

    Raises:
        ValueError: a size is below 1, or the temperature is not positive.
    """
    at_least_one(width=shape.width, block=shape.block, max_tokens=sampling.max_tokens)
    tree = Tree(prompt, [listen] if listen else [])
    search = Extender(policy, value, tree, sampling, seed)
    parents, left, round = [tree.nodes[ROOT]] * shape.width, shape.width, 0
    while parents:
        made = await together(
            search.extend(parent, shape.block, round=round, lane=lane) for lane, parent in enumerate(parents)
        )
        live = [index for index, block in enumerate(made) if block.state == "kept"]
        left -= len(made) - len(live)
        shares = dict(zip(live, allot([_value(made[at].score) for at in live], left, shape.temperature), strict=True))
        grown = []
        for index, (parent, block) in enumerate(zip(parents, made, strict=True)):
            block = block._replace(state="pruned") if shares.get(index, 1) == 0 else block
            node = tree.add(parent.id, group=0, round=round, index=index, **block._asdict())
            grown += [node] * shares.get(index, 0)
        parents = grown
        round += 1
    return tree


def allot(values: Sequence[float], blocks: int, temperature: float) -> list[int]:
    """Shares of `blocks` in proportion to exp(value / temperature), as whole numbers that add up to `blocks`.

    What rounding down leaves goes to the largest remainders, of equals to the first.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; shares need a positive one: raise it")
    if not values:
        return []
    top = max(values)
    weights = [math.exp((value - top) / temperature) for value in values]
    exact = [blocks * weight / math.fsum(weights) for weight in weights]
    shares = [math.floor(share) for share in exact]
    order = sorted(range(len(values)), key=lambda at: (shares[at] - exact[at], at))
    for at in order[: blocks - sum(shares)]:
        shares[at] += 1
    return shares


def _value(score: Score | None) -> float:
    """A value that is missing or NaN speaks for nothing."""
    return 0.0 if score is None or math.isnan(score.value) else score.value
