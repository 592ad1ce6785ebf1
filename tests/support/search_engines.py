"""Engines for tests of searches: scripted, recorded and canned."""

from __future__ import annotations

import random
from collections import Counter

from vgs_ray.config import Sampling
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Score, Usage
from vgs_ray.engines.scripted import ScriptedPolicy, ScriptedValue, World
from vgs_ray.search.tree import Tree

WORLD = World(steps=24, slip=0.08)
PROMPT = (3,)
LONG = Sampling(max_tokens=40)


def engines(latency: int = 0, seed: int = 0, noise: float = 1.0) -> tuple[ScriptedPolicy, ScriptedValue]:
    return (
        ScriptedPolicy(WORLD, latency=latency, seed=seed),
        ScriptedValue(WORLD, noise=noise, latency=latency),
    )


def answers(tree: Tree) -> list[tuple[Tokens, float | None]]:
    return [(tree.path(leaf.id), leaf.value) for leaf in tree.leaves()]


class Recorded:
    """Engines whose blocks and values are functions of the prefix. Values tie often. A token's log-probability depends on it."""

    def __init__(self, seed: int) -> None:
        self.seed, self.usage, self.calls = seed, Usage(), Counter[Tokens]()

    def block(self, prefix: Tokens, number: int) -> tuple[Tokens, bool]:
        draw = random.Random(stable_seed(self.seed, *prefix, "block", number))
        return tuple(draw.randrange(1, 50) for _ in range(draw.randint(1, 3))), draw.random() < 0.2

    def value(self, tokens: Tokens) -> float:
        return random.Random(stable_seed(self.seed, *tokens, "value")).choice([0.1, 0.3, 0.3, 0.7, 0.9])

    @staticmethod
    def mean_logprob(tokens: Tokens) -> float:
        return -sum(token % 4 for token in tokens) / max(len(tokens), 1)

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        self.calls[prefix] += 1
        tokens, ended = self.block(prefix, self.calls[prefix])
        tokens = tokens[: sampling.max_tokens]
        return Completion(tokens, ended, "stop", self.mean_logprob(tokens))

    async def score(self, tokens: Tokens) -> Score:
        return Score(self.value(tokens))


class Canned:
    """Writes 1, 2, 3, ..., one token in each call, and ends at the tokens in `ends`. The value depends on the last token."""

    def __init__(self, values: dict[int, float], ends: frozenset[int] = frozenset()) -> None:
        self.values, self.ends, self.usage, self.calls = values, ends, Usage(), 0

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        self.calls += 1
        token = self.calls
        return Completion((token,), token in self.ends, "stop" if token in self.ends else "length", 0.0)

    async def score(self, tokens: Tokens) -> Score:
        return Score(self.values.get(tokens[-1], 0.1))
