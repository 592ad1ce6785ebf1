"""Scripted test doubles of the engines: a small world in which every probability is known.

In: a `World`. Out: a `ScriptedPolicy` and a `ScriptedValue`, with which a search takes milliseconds and needs no torch.

A response is a chain of `steps` tokens and an end token. Token 0 is a correct step. Token k > 0 is a slip that shifts the answer
by k. All slips of the policy shift by 1, so wrong answers often agree, and a majority vote is wrong where slips are likely. The
value model sees the slips.
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
from vgs_ray.engines.interface import Completion, FinishReason, SamplingWithLogprobs, Score, Usage, Value

END = 9
"""The end-of-sequence token."""


@dataclass(frozen=True)
class World:
    """Problems with the prompt (number, ...) and the gold answer number modulo `modulus`.

    Attributes:
        steps: tokens of a chain before its end token.
        slip: probability of a slip in one step.
        modulus: slips that add up to it cancel.
    """

    steps: int = 24
    slip: float = 0.08
    modulus: int = 7

    def gold(self, prompt: Tokens) -> str:
        return str(prompt[0] % self.modulus)

    def answer(self, prompt: Tokens, response: Tokens) -> str | None:
        """The answer of a response; None without an end token."""
        if not response or response[-1] != END:
            return None
        return str((prompt[0] + sum(response[:-1])) % self.modulus)

    def outcome(self, prompt: Tokens, response: Tokens) -> str:
        answer = self.answer(prompt, response)
        return "incomplete" if answer is None else "correct" if answer == self.gold(prompt) else "incorrect"

    def chance(self, response: Tokens) -> float:
        """The exact P(the finished answer will be correct) after these response tokens."""
        body = [token for token in response if token != END]
        return _chance(sum(body) % self.modulus, self.steps - len(body), self.slip, self.modulus)


@cache
def _chance(shift: int, left: int, slip: float, modulus: int) -> float:
    if left <= 0:
        return float(shift == 0)
    correct_step, slip_step = (_chance((shift + step) % modulus, left - 1, slip, modulus) for step in (0, 1))
    return (1 - slip) * correct_step + slip * slip_step


@dataclass
class ScriptedPolicy:
    """A `Policy` that slips at random. Its tokens are a function of the prefix length and the seed.

    Attributes:
        world: of the problems.
        prompt_length: tokens of a prompt.
        latency: maximum number of times that a call yields to others, so that calls end out of order.
        seed: of the latency.
    """

    world: World
    prompt_length: int = 1
    latency: int = 0
    seed: int = 0
    usage: Usage = field(default_factory=Usage)

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        await _yield_at_random(self.latency, self.seed, seed)
        generator = random.Random(seed)
        before = len(prefix) - self.prompt_length
        tokens: list[int] = []
        while len(tokens) < sampling.max_tokens:
            done = before + len(tokens) >= self.world.steps
            tokens.append(END if done else int(generator.random() < self.world.slip))
            if done or tokens[-1] in sampling.stop_token_ids:
                break
        self.usage.generated += len(tokens)
        self.usage.prefilled += len(prefix)
        finished = bool(tokens) and tokens[-1] == END
        stopped = finished or (bool(tokens) and tokens[-1] in sampling.stop_token_ids)
        slip = self.world.slip
        known = {END: 0.0, 0: math.log1p(-slip), 1: math.log(slip) if slip else -math.inf}
        logprobs = tuple(map(known.__getitem__, tokens)) if isinstance(sampling, SamplingWithLogprobs) else None
        reason: FinishReason = "stop" if stopped else "length"
        return Completion(tuple(tokens), finished, reason, known[0], len(prefix), logprobs=logprobs)


@dataclass
class ScriptedValue(Value):
    """A `Value` that knows the exact probability, with noise.

    Attributes:
        noise: standard deviation of the error of the logit, which is a function of the tokens; 0 is an oracle.
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
        await _yield_at_random(self.latency, self.seed, key)
        self.usage.scored += len(tokens)
        chance = min(max(self.world.chance(tokens[self.prompt_length :]), 0.01), 0.99)
        logit = math.log(chance / (1 - chance)) + random.Random(key).gauss(0, self.noise)
        value = 1 / (1 + math.exp(-logit))
        return Score(value, (1 - value, value, 0.0), len(tokens))


async def _yield_at_random(latency: int, seed: int, call: int) -> None:
    for _ in range(random.Random(stable_seed(seed, call)).randint(0, latency)):
        await asyncio.sleep(0)
