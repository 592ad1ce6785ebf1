"""DeepConf: equality with a second implementation, and what is counted."""

from __future__ import annotations

import asyncio
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_engines import PROMPT, Recorded

from vgs_ray.config import DeepConf, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion
from vgs_ray.search.deepconf import deepconf
from vgs_ray.search.tree import Tree


def grow(recorded: Recorded, shape: DeepConf, longest: int) -> Tree:
    return asyncio.run(deepconf(recorded, PROMPT, shape=shape, sampling=Sampling(max_tokens=longest), seed=0))


def voting(recorded: Recorded, shape: DeepConf, longest: int) -> list[tuple[Tokens, float]]:
    """The answers that vote and their confidences, written from the description of the method."""
    calls: Counter[Tokens] = Counter()

    def sample(threshold: float) -> tuple[Tokens, float]:
        text, lowest, ended = (), 1.0, False
        while not ended and len(text) < longest and lowest >= threshold:
            calls[text] += 1
            block, ended = recorded.block(PROMPT + text, calls[text])
            block = block[: longest - len(text)]
            text, lowest = text + block, min(lowest, math.exp(recorded.mean_logprob(block)))
        return text, lowest

    first = shape.warmup or shape.width
    samples = [sample(0.0) for _ in range(first)]
    ranked = sorted((lowest for _, lowest in samples), reverse=True)
    threshold = ranked[max(math.ceil(shape.top * first), 1) - 1]
    samples += [sample(threshold) for _ in range(shape.width - first)]
    return sorted(each for each in samples if each[1] >= threshold)


@given(
    seed=st.integers(0, 10_000),
    width=st.integers(1, 8),
    warmup=st.integers(0, 8),
    top=st.floats(0, 1),
    longest=st.integers(1, 12),
)
@settings(max_examples=200, deadline=None)
def test_the_votes_are_those_of_a_second_implementation(
    seed: int, width: int, warmup: int, top: float, longest: int
) -> None:
    shape = DeepConf(width=width, block=99, top=top, warmup=min(warmup, width))
    tree = grow(Recorded(seed), shape, longest)
    assert sorted((tree.path(leaf.id), leaf.value) for leaf in tree.leaves()) == voting(Recorded(seed), shape, longest)
    assert tree.usage().scored == 0
    assert {node.group for node in tree.nodes[1:]} == {0}


def test_a_sample_of_low_confidence_is_stopped_early() -> None:
    spent = {
        warmup: sum(
            grow(Recorded(seed), DeepConf(16, 99, top=0.25, warmup=warmup), 60).usage().generated for seed in range(9)
        )
        for warmup in (0, 4)
    }
    assert spent[4] < 0.9 * spent[0]


def test_a_policy_without_log_probabilities_is_refused() -> None:
    class Without(Recorded):
        async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
            return (await super().extend(prefix, sampling, seed))._replace(mean_logprob=math.nan)

    with pytest.raises(ValueError, match="use a policy engine that computes them"):
        grow(Without(0), DeepConf(4, 99), 9)
