"""Best-of-N sampling: independent whole answers, each scored once at its end."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from vgs_ray.config import Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Policy, Value
from vgs_ray.search.blocks import BlockSampler, check_positive
from vgs_ray.search.cache_room import GROWING, CacheRoom, Room
from vgs_ray.search.early_stop import EarlyStop, run_groups
from vgs_ray.search.tree import Listener, Tree


async def sample(
    policy: Policy,
    value: Value | None,
    prompt: Tokens,
    *,
    count: int,
    sampling: Sampling,
    seed: int,
    listen: Listener | None = None,
    room: Room | None = None,
    stop: EarlyStop | None = None,
) -> Tree:
    """Sample `count` independent answers; answer i is group i of the tree.

    Args:
        policy: samples the answers.
        value: scores the answers; None leaves them unscored, for a majority vote.
        prompt: tokens that each answer continues.
        count: number of answers.
        sampling: of the policy. Its stop tokens are ignored: an answer ends at its end-of-sequence token or at `max_tokens`.
        seed: of this problem; answer i has the seed of the path (round 0, lane i).
        listen: called with each node when it is added.
        room: admits the answers; None admits all of them at once.
        stop: ends the search when its vote is decided, as in `beam`.

    Raises:
        ValueError: `count` or `sampling.max_tokens` is below 1.
    """
    check_positive(count=count, max_tokens=sampling.max_tokens)
    tree = Tree(prompt, listen)
    sampler = BlockSampler(policy, value, tree, replace(sampling, stop_token_ids=()), seed)
    admission = room or CacheRoom()

    async def sample_answer(group: int) -> None:
        async with admission.enter("sample", 1, sampling.max_tokens * GROWING) as hold:
            answer = await sampler.sample(tree.root, sampling.max_tokens, round=0, lane=group)
            hold.needs(len(answer.tokens) * GROWING, 0)
        sampler.add(tree.root, answer.as_leaf(), group=group, round=0, index=0)

    voting = await run_groups([partial(sample_answer, group) for group in range(count)], tree, 1, stop)
    if voting < count:
        sampler.drop(voting, width=1)
    return tree
