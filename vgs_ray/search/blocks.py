"""Sample and score one block of tokens: the call that all explorers share.

In: a prefix of a tree, a token limit and the block's place in the search. Out: a `Block`, and later its `Node`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from vgs_ray.config import Sampling
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Interrupted, Policy, Score, Value
from vgs_ray.search.tree import Node, State, Tree


class Block(NamedTuple):
    """A sampled block that is not in the tree yet.

    Attributes:
        tokens: new tokens of this block only.
        score: from the value model; None without one.
        state: of its node, unless the explorer prunes it.
        prefilled: tokens of the prefix that the policy forwarded.
        logprob: mean log-probability of the tokens; None if the engine does not compute it.
    """

    tokens: Tokens
    score: Score | None
    state: State
    prefilled: int
    logprob: float | None = None

    @property
    def value(self) -> float | None:
        """P(correct); None if the block was not scored or its score is NaN."""
        return None if self.score is None or math.isnan(self.score.value) else self.score.value

    def as_leaf(self) -> Block:
        """The block at the end of an answer: a block that the search does not extend has state `length`."""
        return self._replace(state="length") if self.state == "kept" else self


@dataclass(frozen=True)
class BlockSampler:
    """Samples, scores and adds the blocks of one search.

    Attributes:
        policy: samples the blocks.
        value: scores each block once; None leaves blocks unscored.
        tree: of the search.
        sampling: of the policy; `max_tokens` limits a whole response.
        seed: of the problem; a block's seed is derived from it and from the block's (round, lane).
        cache_block: align the ends of blocks to cache blocks of this many tokens, see `aligned_length`; 1 does not.
        sampled: the blocks by (round, lane), with the ids of their parents, also those that a cancelled search had begun.
    """

    policy: Policy
    value: Value | None
    tree: Tree
    sampling: Sampling
    seed: int
    cache_block: int = 1
    sampled: dict[tuple[int, int], tuple[int, Block]] = field(default_factory=dict)

    async def sample(self, prefix: Node, length: int, *, round: int, lane: int) -> Block:
        """Sample a block of at most `length` tokens after `prefix`, or of the aligned length, and score it."""
        tokens = self.tree.prompt + self.tree.path(prefix.id)
        left = self.sampling.max_tokens - self.tree.end(prefix.id)
        # A block that could be the rest of the answer is not cut, so one block to the end stays one block.
        requested = left if length >= left else min(aligned_length(len(tokens), length, self.cache_block), left)
        try:
            completion = await self.policy.extend(
                tokens, replace(self.sampling, max_tokens=requested), stable_seed(self.seed, round, lane)
            )
        except Interrupted as error:
            self.sampled[round, lane] = prefix.id, _block(error.completion, "pruned")
            raise
        block = _block(completion, self._state(prefix, completion, requested))
        self.sampled[round, lane] = prefix.id, block
        if block.score is None and self.value:
            block = block._replace(score=await self.value.score(tokens + completion.tokens))
            self.sampled[round, lane] = prefix.id, block
        return block

    def add(self, parent: Node, block: Block, *, group: int, round: int, index: int) -> Node:
        """Append the block to the tree, below `parent`."""
        return self.tree.add(parent.id, group=group, round=round, index=index, **block._asdict())

    def drop(self, first_group: int, width: int) -> None:
        """Prune the groups from `first_group` on, whose calls have ended or were cancelled. Their tokens stay in the tree.

        Args:
            first_group: number of groups that stay.
            width: number of lanes of a group.
        """
        added = {(node.group, node.round, node.index) for node in self.tree.nodes}
        for (round, lane), (parent, block) in sorted(self.sampled.items()):
            group, index = divmod(lane, width)
            if group >= first_group and block.tokens and (group, round, index) not in added:
                pruned = block._replace(state="pruned")
                self.tree.add(parent, group=group, round=round, index=index, **pruned._asdict())
        self.tree.prune(first_group)

    def _state(self, prefix: Node, completion: Completion, requested: int) -> State:
        if completion.finished:
            return "finished"
        count = len(completion.tokens)
        at_limit = self.tree.end(prefix.id) + count >= self.sampling.max_tokens
        # Fewer tokens than requested and no stop token: the policy has reached its own context length.
        at_context_end = completion.finish_reason == "length" and count < requested
        return "length" if at_limit or at_context_end or not count else "kept"


def _block(completion: Completion, state: State) -> Block:
    logprob = None if math.isnan(completion.mean_logprob) else completion.mean_logprob
    return Block(completion.tokens, completion.score, state, completion.prefilled, logprob)


def aligned_length(start: int, block: int, cache_block: int) -> int:
    """Length of a block after `start` tokens, prompt included, such that the next one does not read tokens again.

    Caches hold whole cache blocks, and a sampled token is in the cache once the next token has been sampled. So a block ends one
    token after the end of a cache block. Blocks shorter than that end at equal parts of it: of two blocks of half a cache block,
    one ends with it.

    Args:
        start: number of tokens before the block.
        block: desired length.
        cache_block: number of tokens in a block of the engines' caches; with 1 the length is `block`.

    Returns:
        The closest length to `block` with such an end; of two, the lower one.
    """
    part = next(size for size in range(min(block, cache_block), 0, -1) if cache_block % size == 0)
    least = block - part // 2
    return least + (1 - start - least) % part


def fit_to_context(sampling: Sampling, prompt: int, context: int, stage: str) -> Sampling:
    """Limit the length of a response, such that it fits with its prompt into the context of the engines.

    Args:
        sampling: of the policy.
        prompt: number of tokens of the prompt.
        context: number of tokens that the engines hold.
        stage: of the recipe, for the error.

    Raises:
        ValueError: the prompt fills the context.
    """
    if prompt >= context:
        raise ValueError(
            f"the prompt has {prompt} tokens and the engines hold {context}; the answer needs at least one more: raise "
            f"max_model_len of {stage}.policy_engine and {stage}.value_engine, or remove the problem"
        )
    return replace(sampling, max_tokens=min(sampling.max_tokens, context - prompt))


def check_positive(**sizes: int) -> None:
    """Raise a ValueError if a size is below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; a search needs at least 1: raise it")
