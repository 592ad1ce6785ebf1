"""Value-guided beam search (VGS, arXiv 2505.17373, Algorithm 1). `beam_step` is one round of one group.

`groups > 1` is DVTS. A block that ends at a delimiter gives the step-level beam search of TVM (2407.12863) and SVPO (2406.10858).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from vgs_ray import config
from vgs_ray.config import Sampling
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Policy, Value
from vgs_ray.search.blocks import Block, BlockSampler, check_positive
from vgs_ray.search.gather import gather_or_cancel
from vgs_ray.search.tree import Listener, Node, Tree


async def beam(
    policy: Policy,
    value: Value,
    prompt: Tokens,
    *,
    beam: config.Beam,
    sampling: Sampling,
    seed: int,
    listen: Listener | None = None,
) -> Tree:
    """Search in `beam.groups` independent groups.

    A group starts with `keep` live prefixes, each the prompt alone. A round samples `branch` blocks from each live prefix,
    scores them, and keeps as many of the best as there were live prefixes. A kept prefix that is finished or has
    `sampling.max_tokens` tokens leaves the live prefixes and is not compared again, as in the published code; `beam.finished`
    says whether the other prefixes get its blocks. Each block is scored once. The value of an answer is that of its last block.

    With `branch` 1 and one block to the end, the answers equal those of `sample` with `keep * groups` answers, token for token.

    Args:
        policy: samples the blocks.
        value: scores the blocks.
        prompt: tokens that each answer continues.
        beam: shape of the search; a block also ends at `sampling.stop_token_ids`.
        sampling: of the policy; `max_tokens` limits a whole response.
        seed: of this problem; a block has the seed of its path (round, lane), where a lane is a number among the blocks of a
            round over all groups.
        listen: called with each node when it is added.

    Raises:
        ValueError: a size is below 1.
    """
    sizes = {"keep": beam.keep, "branch": beam.branch, "block": beam.block, "groups": beam.groups}
    check_positive(**sizes, max_tokens=sampling.max_tokens)
    tree = Tree(prompt, listen)
    sampler = BlockSampler(policy, value, tree, sampling, seed)
    await gather_or_cancel(_search_group(sampler, beam, group) for group in range(beam.groups))
    return tree


class LivePrefix(NamedTuple):
    """A prefix that the next round extends, and its rank by value in the last round (0 is the best)."""

    node: Node
    rank: int


async def _search_group(sampler: BlockSampler, beam: config.Beam, group: int) -> None:
    live = [LivePrefix(sampler.tree.root, rank) for rank in range(beam.keep)]
    round = 0
    while live:
        live = await beam_step(sampler, beam, live, group=group, round=round)
        round += 1


async def beam_step(
    sampler: BlockSampler, beam: config.Beam, live: Sequence[LivePrefix], *, group: int, round: int
) -> list[LivePrefix]:
    """Extend the live prefixes of a group by one block, keep the best, and return those that are still live."""
    parents = _parents(beam, len(live))
    first_lane = group * beam.keep * beam.branch
    blocks = await gather_or_cancel(
        sampler.sample(live[parent].node, beam.block, round=round, lane=first_lane + index)
        for index, parent in enumerate(parents)
    )
    keys = _random_keys(len(blocks), sampler.seed, round, group) if beam.choose == "random" else _value_keys(blocks)
    # Ties go to the child of the better prefix, then to the first block. The published code leaves them to torch.topk, which
    # defines no order of equal elements.
    order = sorted(range(len(blocks)), key=lambda index: (-keys[index], live[parents[index]].rank, index))
    kept = _kept(order, parents, beam.rank)
    nodes = [
        sampler.add(
            live[parents[index]].node,
            block if index in kept else block._replace(state="pruned"),
            group=group,
            round=round,
            index=index,
        )
        for index, block in enumerate(blocks)
    ]
    ranks = {index: rank for rank, index in enumerate(order)}
    # In the order of the blocks, not of their values: rounding noise in a value must not change a prefix's seed.
    return [LivePrefix(node, ranks[node.index]) for node in nodes if node.state == "kept"]


def _parents(beam: config.Beam, live: int) -> list[int]:
    """Index of the live prefix that each block of a round extends."""
    branches, extra = (beam.branch, 0) if beam.finished == "retire" else divmod(beam.keep * beam.branch, live)
    return [parent for parent in range(live) for _ in range(branches + (parent < extra))]


def _value_keys(blocks: Sequence[Block]) -> list[float]:
    """Values to rank by; a missing value ranks last."""
    return [-math.inf if block.value is None else block.value for block in blocks]


def _random_keys(count: int, seed: int, round: int, group: int) -> list[float]:
    generator = random.Random(stable_seed(seed, "choose", round, group))
    return [generator.random() for _ in range(count)]


def _kept(order: Sequence[int], parents: Sequence[int], rank: str) -> set[int]:
    """Indices of the kept blocks, as many as there are parents: the first in `order`, or the first of each parent."""
    if rank == "parent":
        return {next(index for index in order if parents[index] == parent) for parent in set(parents)}
    return set(order[: len(set(parents))])
