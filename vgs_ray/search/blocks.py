"""Sample and score one block of tokens: the call that all explorers share.

In: a prefix of a tree, a token limit and the block's place in the search. Out: a `Block`, and later its `Node`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from vgs_ray.config import Sampling
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Policy, Score, Value
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
    """

    policy: Policy
    value: Value | None
    tree: Tree
    sampling: Sampling
    seed: int

    async def sample(self, prefix: Node, max_tokens: int, *, round: int, lane: int) -> Block:
        """Sample at most `max_tokens` tokens after `prefix` and score them."""
        tokens = self.tree.prompt + self.tree.path(prefix.id)
        requested = min(max_tokens, self.sampling.max_tokens - self.tree.end(prefix.id))
        completion = await self.policy.extend(
            tokens, replace(self.sampling, max_tokens=requested), stable_seed(self.seed, round, lane)
        )
        score = completion.score
        if score is None and self.value:
            score = await self.value.score(tokens + completion.tokens)
        state = self._state(prefix, completion, requested)
        logprob = None if math.isnan(completion.mean_logprob) else completion.mean_logprob
        return Block(completion.tokens, score, state, completion.prefilled, logprob)

    def add(self, parent: Node, block: Block, *, group: int, round: int, index: int) -> Node:
        """Append the block to the tree, below `parent`."""
        return self.tree.add(parent.id, group=group, round=round, index=index, **block._asdict())

    def _state(self, prefix: Node, completion: Completion, requested: int) -> State:
        if completion.finished:
            return "finished"
        count = len(completion.tokens)
        at_limit = self.tree.end(prefix.id) + count >= self.sampling.max_tokens
        # Fewer tokens than requested and no stop token: the policy has reached its own context length.
        at_context_end = completion.finish_reason == "length" and count < requested
        return "length" if at_limit or at_context_end or not count else "kept"


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
