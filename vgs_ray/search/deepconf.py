"""Samples that are filtered and weighted by the policy's confidence (DeepConf, arXiv 2508.15260). No value model is needed.

The confidence of a window is the geometric mean of the probabilities of its tokens, and that of an answer is the lowest of its
windows. The paper's windows overlap, and have the mean log-probability of the 20 most likely tokens at each position, which the
engines do not return.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from vgs_ray.config import DeepConf, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Policy, Score
from vgs_ray.search.blocks import Block, BlockSampler, check_positive
from vgs_ray.search.gather import gather_or_cancel
from vgs_ray.search.tree import Listener, Node, Tree


class Answer(NamedTuple):
    """The last block of a sample, which is not in the tree yet.

    Attributes:
        parent: node that the block extends.
        block: its tokens and score.
        round, lane: its place.
        confidence: of the least confident window of the sample.
    """

    parent: Node
    block: Block
    round: int
    lane: int
    confidence: float


async def deepconf(
    policy: Policy,
    prompt: Tokens,
    *,
    shape: DeepConf,
    sampling: Sampling,
    seed: int,
    listen: Listener | None = None,
) -> Tree:
    """Sample `shape.width` answers. Those with at least the threshold vote, with their confidence as value.

    The threshold is the lowest confidence among the share `shape.top` with the highest. With `shape.warmup`, it is that of so
    many answers, which are sampled first. A later sample is stopped when a window has a lower confidence.

    Args:
        policy: samples the windows.
        prompt: tokens that each answer continues.
        shape: of the search; a window also ends at `sampling.stop_token_ids`.
        sampling: of the policy; `max_tokens` limits a whole response.
        seed: of this problem; a window has the seed of its place (round, number of the sample).
        listen: called with each node when it is added.

    Raises:
        ValueError: a size is below 1, or the policy computes no log-probabilities.
    """
    check_positive(width=shape.width, block=shape.block, max_tokens=sampling.max_tokens)
    sampler = BlockSampler(policy, None, Tree(prompt, listen), sampling, seed)
    first = min(shape.warmup, shape.width) or shape.width
    answers = await gather_or_cancel(_sample(sampler, shape.block, lane, 0.0) for lane in range(first))
    threshold = lowest_of_top([answer.confidence for answer in answers], shape.top)
    answers += await gather_or_cancel(
        _sample(sampler, shape.block, lane, threshold) for lane in range(first, shape.width)
    )
    for answer in answers:
        voting = answer.confidence >= threshold
        _add(sampler, answer, answer.block if voting else answer.block._replace(state="pruned"))
    return sampler.tree


def lowest_of_top(confidences: Sequence[float], top: float) -> float:
    """The lowest among the share `top` of the highest confidences, which has at least one."""
    return sorted(confidences, reverse=True)[max(math.ceil(top * len(confidences)), 1) - 1]


async def _sample(sampler: BlockSampler, window: int, lane: int, threshold: float) -> Answer:
    """Sample windows until the answer ends, or until the confidence of one is below the threshold."""
    parent, round, confidence = sampler.tree.root, 0, 1.0
    while True:
        block = await sampler.sample(parent, window, round=round, lane=lane)
        if block.logprob is None:
            raise ValueError(
                "a window has no log-probability, which DeepConf needs: use a policy engine that computes them"
            )
        confidence = min(confidence, math.exp(block.logprob))
        answer = Answer(parent, block._replace(score=Score(confidence, (), 0)), round, lane, confidence)
        if block.state != "kept" or confidence < threshold:
            return answer
        parent, round = _add(sampler, answer, answer.block), round + 1


def _add(sampler: BlockSampler, answer: Answer, block: Block) -> Node:
    return sampler.add(answer.parent, block, group=0, round=answer.round, index=answer.lane)
