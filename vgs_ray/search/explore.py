"""Explorers: how a tree grows below one prompt.

In: a `Policy`, a `Value`, the prompt's tokens, sampling and a seed that belongs to the problem. Out: a `Tree`, which
`select` lets vote. Nothing here waits for more than it needs: samples and groups run side by side, and the candidates
of one group meet only where they are compared. Cancelling a search cancels its calls.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from vgs_ray import config
from vgs_ray.config import Sampling
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Policy, Score, Value
from vgs_ray.search.tree import ROOT, Listener, Node, State, Tree

T = TypeVar("T")


async def sample(
    policy: Policy,
    value: Value | None,
    prompt: Tokens,
    *,
    count: int,
    sampling: Sampling,
    seed: int,
    listen: Listener | None = None,
) -> Tree:
    """`count` independent whole answers, each scored once at its end; answer i is group i.

    Args:
        value: None leaves the answers unscored, for a plain majority vote.
        sampling: of the policy; stop tokens are ignored because an answer ends only at its end or at `max_tokens`.
        seed: of this problem; answer i has the seed of the path (round 0, lane i).
        listen: called with each node as it is added.

    Raises:
        ValueError: `count` or `sampling.max_tokens` is below 1.
    """
    at_least_one(count=count, max_tokens=sampling.max_tokens)
    tree = Tree(prompt, [listen] if listen else [])
    search = Extender(policy, value, tree, replace(sampling, stop_token_ids=()), seed)

    async def one(group: int) -> None:
        made = await search.extend(tree.nodes[ROOT], sampling.max_tokens, round=0, lane=group)
        # A policy can stop short of `max_tokens` (its own longest sequence); that too is the limit of this answer.
        state: State = "finished" if made.state == "finished" else "length"
        made = made._replace(state=state)
        tree.add(ROOT, group=group, round=0, index=0, **made._asdict())

    await together(one(group) for group in range(count))
    return tree


async def beam(
    policy: Policy,
    value: Value,
    prompt: Tokens,
    *,
    beam: config.Beam,
    sampling: Sampling,
    seed: int,
    first_group: int = 0,
    listen: Listener | None = None,
) -> Tree:
    """Value-guided search (arXiv 2505.17373, Algorithm 1) in `beam.groups` independent groups.

    A group has `keep` live prefixes, all the prompt at first. In each round it samples `branch` blocks from each of
    them, scores the candidates, and goes on with as many of the best as there were live prefixes. A survivor that is
    finished or at `sampling.max_tokens` keeps its slot: it leaves the live ones and is never compared again, as
    published; `beam.finished` says whether its width goes to the others. Every block is scored once; the value of an answer is
    the value of its last block.

    One block to the end with `branch` 1 is `sample` with `keep * groups` answers, token for token.

    Args:
        beam: shape of the search; a block also ends at `sampling.stop_token_ids`.
        sampling: of the policy; `max_tokens` limits the whole response.
        seed: of this problem; a block has the seed of the path (round, lane), where lane counts the candidates of a
            round over all groups.
        first_group: number of the first group; a search can later be continued with more groups.
        listen: called with each node as it is added.

    Raises:
        ValueError: a size is below 1.
    """
    sizes = {"keep": beam.keep, "branch": beam.branch, "block": beam.block, "groups": beam.groups}
    at_least_one(**sizes, max_tokens=sampling.max_tokens)
    tree = Tree(prompt, [listen] if listen else [])
    search = Extender(policy, value, tree, sampling, seed)
    groups = range(first_group, first_group + beam.groups)
    await together(_grow(search, beam, group) for group in groups)
    return tree


class Candidate(NamedTuple):
    tokens: Tokens
    score: Score | None
    state: State  # what it is if it survives
    prefilled: int


@dataclass(frozen=True)
class Extender:
    """Samples and scores blocks; what all blocks of one search share."""

    policy: Policy
    value: Value | None
    tree: Tree
    sampling: Sampling
    seed: int

    async def extend(self, prefix: Node, block: int, *, round: int, lane: int) -> Candidate:
        """Sample a block of at most `block` tokens from `prefix`, and score it."""
        tokens = self.tree.prompt + self.tree.path(prefix.id)
        asked = min(block, self.sampling.max_tokens - self.tree.end(prefix.id))
        limits = replace(self.sampling, max_tokens=asked)
        made = await self.policy.extend(tokens, limits, stable_seed(self.seed, round, lane))
        score = await self.value.score(tokens + made.tokens) if self.value else None
        return Candidate(made.tokens, score, self._state(prefix, made, asked), made.prefilled)

    def _state(self, prefix: Node, made: Completion, asked: int) -> State:
        if made.finished:
            return "finished"
        full = self.tree.end(prefix.id) + len(made.tokens) >= self.sampling.max_tokens
        # Fewer tokens than asked, and no stop: the policy's own longest sequence is reached.
        stuck = made.finish_reason == "length" and len(made.tokens) < asked
        return "length" if full or stuck or not made.tokens else "kept"


async def _grow(search: Extender, beam: config.Beam, group: int) -> None:
    live, width = [search.tree.nodes[ROOT]] * beam.keep, beam.keep * beam.branch
    standing = list(range(beam.keep))  # of each live prefix among them, the best one first
    round = 0
    while live:
        each = beam.branch if beam.finished == "retire" else width // len(live)
        spare = 0 if beam.finished == "retire" else width % len(live)
        parents = [at for at in range(len(live)) for _ in range(each + (at < spare))]
        candidates = await together(
            search.extend(live[parent], beam.block, round=round, lane=group * width + index)
            for index, parent in enumerate(parents)
        )
        values = [_rankable(made.score) for made in candidates]
        if beam.choose == "random":
            draw = random.Random(stable_seed(search.seed, "choose", round, group))
            values = [draw.random() for _ in candidates]
        # Of equals the child of the better prefix wins, then the first one. The published code leaves ties to torch.topk, which
        # defines no order of equal elements; a search must not depend on it.
        order = sorted(range(len(values)), key=lambda at: (-values[at], standing[parents[at]], at))
        chosen = _survivors(order, parents, beam.rank)
        nodes = [
            search.tree.add(
                live[parents[index]].id,
                group=group,
                round=round,
                index=index,
                **(made if index in chosen else made._replace(state="pruned"))._asdict(),
            )
            for index, made in enumerate(candidates)
        ]
        # In the order of candidates, not of values: rounding noise in a value must not move a prefix to another seed.
        live = [node for node in nodes if node.state == "kept"]
        places = {at: place for place, at in enumerate(order)}
        standing = [places[node.index] for node in live]
        round += 1


def _rankable(score: Score | None) -> float:
    return -math.inf if score is None or math.isnan(score.value) else score.value


def _survivors(order: list[int], parents: list[int], rank: str) -> set[int]:
    """Indices of as many candidates as there are parents: the first ones in order, or the first of each parent."""
    if rank == "parent":
        return {next(index for index in order if parents[index] == parent) for parent in set(parents)}
    return set(order[: len(set(parents))])


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in the order of `calls`. The first error is raised as it is, after the other calls are cancelled."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def at_least_one(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; a search needs at least 1: raise it")
