"""Scripted doubles of the engines, for tests and examples: a world small enough to know every probability.

In: a `World`. Out: a `ScriptedPolicy` and a `ScriptedValue` with which search runs in milliseconds, without torch. A
response is a chain of `steps` tokens and an end token. Token 0 is a right step, token k > 0 a slip that shifts the
answer by k. Slips shift the same way, so wrong answers agree with each other and a majority vote is wrong where slips
are likely; the value sees them, so a guided search is not fooled.
"""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass, field
from functools import cache

from vgs_ray.config import Sampling
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Score, Usage, Value

END = 9
"""The end-of-sequence token."""


@dataclass(frozen=True)
class World:
    """Problems whose prompt is (problem number, ...) and whose gold answer is that number modulo `modulus`.

    Attributes:
        steps: tokens of a chain before its end token.
        slip: chance of a slip at one step.
        modulus: slips cancel when they add up to it.
    """

    steps: int = 24
    slip: float = 0.08
    modulus: int = 7

    def gold(self, prompt: Tokens) -> str:
        return str(prompt[0] % self.modulus)

    def answer(self, prompt: Tokens, response: Tokens) -> str | None:
        """What a response answers; None when it did not come to its end token."""
        if not response or response[-1] != END:
            return None
        return str((prompt[0] + sum(response[:-1])) % self.modulus)

    def outcome(self, prompt: Tokens, response: Tokens) -> str:
        answer = self.answer(prompt, response)
        return "incomplete" if answer is None else "correct" if answer == self.gold(prompt) else "incorrect"

    def chance(self, response: Tokens) -> float:
        """P(the finished answer will be correct) after these response tokens, exactly."""
        body = [token for token in response if token != END]
        return _chance(sum(body) % self.modulus, self.steps - len(body), self.slip, self.modulus)


@cache
def _chance(shift: int, left: int, slip: float, modulus: int) -> float:
    if left <= 0:
        return float(shift == 0)
    right, wrong = (_chance((shift + step) % modulus, left - 1, slip, modulus) for step in (0, 1))
    return (1 - slip) * right + slip * wrong


@dataclass
class ScriptedPolicy:
    """A `Policy` that slips. Its tokens are a function of prefix length and seed alone.

    Attributes:
        world: what it writes about; the prompt has `prompt_length` tokens.
        latency: calls yield to others up to this many times, at random, so that they end out of order.
        seed: of the latency only.
    """

    world: World
    prompt_length: int = 1
    latency: int = 0
    seed: int = 0
    usage: Usage = field(default_factory=Usage)

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        await _dawdle(self.latency, self.seed, seed)
        draw = random.Random(seed)
        written = len(prefix) - self.prompt_length
        tokens: list[int] = []
        while len(tokens) < sampling.max_tokens:
            done = written + len(tokens) >= self.world.steps
            tokens.append(END if done else int(draw.random() < self.world.slip))
            if done or tokens[-1] in sampling.stop_token_ids:
                break
        self.usage.generated += len(tokens)
        self.usage.prefilled += len(prefix)
        finished = bool(tokens) and tokens[-1] == END
        stopped = finished or (bool(tokens) and tokens[-1] in sampling.stop_token_ids)
        return Completion(
            tuple(tokens), finished, "stop" if stopped else "length", math.log1p(-self.world.slip), len(prefix)
        )


@dataclass
class ScriptedValue(Value):
    """A `Value` that knows the world's chances, blurred.

    Attributes:
        noise: standard deviation of the logit's error, which is a function of the tokens; 0 is an oracle.
        latency, seed: as in `ScriptedPolicy`; the seed also changes the noise.
    """

    world: World
    prompt_length: int = 1
    noise: float = 1.0
    latency: int = 0
    seed: int = 0
    usage: Usage = field(default_factory=Usage)

    async def score(self, tokens: Tokens) -> Score:
        key = stable_seed(self.seed, *tokens)
        await _dawdle(self.latency, self.seed, key)
        self.usage.scored += len(tokens)
        chance = min(max(self.world.chance(tokens[self.prompt_length :]), 0.01), 0.99)
        logit = math.log(chance / (1 - chance)) + random.Random(key).gauss(0, self.noise)
        value = 1 / (1 + math.exp(-logit))
        return Score(value, (1 - value, value, 0.0), len(tokens))


async def _dawdle(latency: int, seed: int, call: int) -> None:
    for _ in range(random.Random(stable_seed(seed, call)).randint(0, latency)):
        await asyncio.sleep(0)
