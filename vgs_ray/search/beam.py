"""Value-guided beam search (VGS, arXiv 2505.17373, Algorithm 1). `beam_step` is one round of one group.

`groups > 1` is DVTS. A block that ends at a delimiter gives the step-level beam search of TVM (2407.12863) and SVPO (2406.10858),
whose B1 is `keep` and B2 is `branch`; that of AlphaMath (2405.03553) also has `finished="compete"`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from vgs_ray import config
from vgs_ray.config import Sampling
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Policy, Value
from vgs_ray.search.blocks import Block, BlockSampler, check_positive
from vgs_ray.search.cache_room import GROWING, CacheRoom, Room
from vgs_ray.search.early_stop import EarlyStop, run_groups
from vgs_ray.search.gather import gather_or_cancel
from vgs_ray.search.select import likely_value
from vgs_ray.search.tree import ROOT, Listener, Node, Tree


async def beam(
    policy: Policy,
    value: Value,
    prompt: Tokens,
    *,
    beam: config.Beam,
    sampling: Sampling,
    seed: int,
    listen: Listener | None = None,
    room: Room | None = None,
    cache_block: int = 1,
    stop: EarlyStop | None = None,
) -> Tree:
    """Search in `beam.groups` independent groups.

    A group starts with `keep` live prefixes, each the prompt alone. A round samples `branch` blocks from each live prefix,
    scores them, and keeps as many of the best as there were live prefixes. A kept prefix that is finished or has
    `sampling.max_tokens` tokens is an answer and is not extended. By default it is not compared again, as in the published code
    of VGS; `beam.finished` has the alternatives. Each block is scored once. The value of an answer is that of its last block.

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
        room: admits the groups; None admits all of them at once.
        cache_block: number of tokens in a block of the engines' caches, for `beam.align`.
        stop: ends the search when its vote is decided; groups that did not vote are then pruned. None runs all groups.

    Raises:
        ValueError: a size is below 1, or the beam needs log-probabilities and the policy computes none.
    """
    sizes = {"keep": beam.keep, "branch": beam.branch, "block": beam.block, "groups": beam.groups}
    check_positive(**sizes, max_tokens=sampling.max_tokens)
    tree = Tree(prompt, listen)
    sampler = BlockSampler(policy, value, tree, sampling, seed, cache_block if beam.align else 1)
    admission = room or CacheRoom()
    groups = [partial(_search_group, sampler, beam, group, admission) for group in range(beam.groups)]
    voting = await run_groups(groups, tree, beam.keep, stop)
    if voting < beam.groups:
        sampler.drop(voting, beam.width)
    return tree


class LivePrefix(NamedTuple):
    """A prefix that the next round extends, and its rank by value in the last round (0 is the best)."""

    node: Node
    rank: int


class Candidate(NamedTuple):
    """A block that is compared with others.

    Attributes:
        parent: node that it extends.
        block: its tokens and score.
        round: of the block.
        number: within its round.
        origin: number of the live prefix that it extends; an answer of an earlier round has one of its own.
        rank: of that prefix, or of that answer, in the last round.
    """

    parent: Node
    block: Block
    round: int
    number: int
    origin: int
    rank: int


async def _search_group(sampler: BlockSampler, beam: config.Beam, group: int, room: Room) -> None:
    live = [LivePrefix(sampler.tree.root, rank) for rank in range(beam.keep)]
    answers: list[Candidate] = []
    round = 0
    async with room.enter(beam, beam.width, _cached_tokens(sampler, beam, live)[1]) as hold:
        try:
            while live:
                hold.needs(*_cached_tokens(sampler, beam, live))
                live, answers = await beam_step(sampler, beam, live, answers, group=group, round=round)
                round += 1
        finally:  # also at a deadline
            for answer in answers:
                _add(sampler, answer, group, kept=True)


def _cached_tokens(sampler: BlockSampler, beam: config.Beam, live: Sequence[LivePrefix]) -> tuple[float, float]:
    """Tokens of the live prefixes and of the blocks that extend them: now, and at most from now on."""
    tree, limit = sampler.tree, sampler.sampling.max_tokens
    ids = {id for prefix in live for id in tree.ancestors(prefix.node.id)}
    prefixes = len(tree.prompt) + sum(len(tree.nodes[id].tokens) for id in ids)
    blocks = len(_parents(beam, [prefix.node for prefix in live])) * min(beam.block, limit) * GROWING
    return prefixes + blocks, len(tree.prompt) + len(live) * max(limit - beam.block, 0) + blocks


async def beam_step(
    sampler: BlockSampler,
    beam: config.Beam,
    live: Sequence[LivePrefix],
    answers: Sequence[Candidate] = (),
    *,
    group: int,
    round: int,
) -> tuple[list[LivePrefix], list[Candidate]]:
    """Extend the live prefixes of a group by one block, and keep the best.

    Returns:
        The prefixes that are still live, and with `finished="compete"` the answers that the next round compares again. A block is
        added to the tree when its state is final.
    """
    candidates = await _sample_round(sampler, beam, live, group, round)
    candidates += [answer._replace(origin=number) for number, answer in enumerate(answers, len(live))]
    if beam.choose == "random":
        keys = _random_keys(len(candidates), sampler.seed, round, group)
    else:
        keys = [_key(sampler.tree, candidate, beam.likelihood) for candidate in candidates]
    # Ties go to the child of the better prefix, then to the first block. The published code leaves them to torch.topk, which
    # defines no order of equal elements.
    order = sorted(range(len(candidates)), key=lambda at: (-keys[at], candidates[at].rank, at))
    kept = _kept(order, [candidate.origin for candidate in candidates], beam.rank)
    ranks = {at: rank for rank, at in enumerate(order)}
    still_live, compared_again = [], []
    # In the order of the blocks, not of their values: rounding noise in a value must not change a prefix's seed.
    for at, candidate in enumerate(candidates):
        if at in kept and candidate.block.state != "kept" and beam.finished == "compete":
            compared_again.append(candidate._replace(rank=ranks[at]))
            continue
        node = _add(sampler, candidate, group, at in kept)
        if node.state == "kept":
            still_live.append(LivePrefix(node, ranks[at]))
    return still_live, compared_again


async def _sample_round(
    sampler: BlockSampler, beam: config.Beam, live: Sequence[LivePrefix], group: int, round: int
) -> list[Candidate]:
    """Sample and score the blocks of a round."""
    parents = _parents(beam, [prefix.node for prefix in live])
    first_lane = group * beam.width
    blocks = await gather_or_cancel(
        sampler.sample(live[parent].node, beam.block, round=round, lane=first_lane + index)
        for index, parent in enumerate(parents)
    )
    return [
        Candidate(live[parent].node, block, round, number, parent, live[parent].rank)
        for number, (parent, block) in enumerate(zip(parents, blocks, strict=True))
    ]


def _add(sampler: BlockSampler, candidate: Candidate, group: int, kept: bool) -> Node:
    block = candidate.block if kept else candidate.block._replace(state="pruned")
    return sampler.add(candidate.parent, block, group=group, round=candidate.round, index=candidate.number)


def _parents(beam: config.Beam, live: Sequence[Node]) -> list[int]:
    """Index of the live prefix that each block of a round extends."""
    if live[0].id == ROOT and beam.start > beam.keep * beam.branch:
        return sorted(index % len(live) for index in range(beam.start))
    branches, extra = divmod(beam.keep * beam.branch, len(live)) if beam.finished == "reinvest" else (beam.branch, 0)
    counts = [branches + (place < extra) for place in range(len(live))]
    return [
        place
        for place, (node, count) in enumerate(zip(live, counts, strict=True))
        for _ in range(count if _branches(beam, node) else 1)
    ]


def _branches(beam: config.Beam, node: Node) -> bool:
    """Whether a prefix is extended by more than one block.

    The mean of -log p of sampled tokens is an estimate of the mean entropy of their distributions without bias.
    """
    if not beam.branch_entropy or node.id == ROOT:
        return True
    return -_logprob(node.logprob, node.id) >= beam.branch_entropy


def _key(tree: Tree, candidate: Candidate, likelihood: float) -> float:
    """The value to rank by; a missing one ranks last."""
    logprob = _mean_logprob(tree, candidate) if likelihood else None
    key = likely_value(candidate.block.value, logprob, likelihood)
    return -math.inf if key is None else key


def _mean_logprob(tree: Tree, candidate: Candidate) -> float:
    """Mean log-probability of the prefix and the block that extends it."""
    parent, block = candidate.parent.id, candidate.block
    before, after = (_logprob(each, parent) for each in (tree.mean_logprob(parent), block.logprob))
    start, added = tree.end(parent), len(block.tokens)
    return (before * start + after * added) / max(start + added, 1)


def _logprob(logprob: float | None, node: int) -> float:
    if logprob is None:
        raise ValueError(
            f"a block at node {node} has no log-probability, which a beam with likelihood or branch_entropy needs: use a policy "
            "engine that computes them, or set both to 0"
        )
    return logprob


def _random_keys(count: int, seed: int, round: int, group: int) -> list[float]:
    generator = random.Random(stable_seed(seed, "choose", round, group))
    return [generator.random() for _ in range(count)]


def _kept(order: Sequence[int], origins: Sequence[int], rank: str) -> set[int]:
    """Indices of the kept candidates, as many as there are origins: the first in `order`, or the first of each origin."""
    if rank == "parent":
        return {next(index for index in order if origins[index] == origin) for origin in set(origins)}
    return set(order[: len(set(origins))])
