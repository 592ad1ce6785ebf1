"""Tokens that the searches of stage evaluate read again on one GPU: python bench/admission.py [--problems 8] [--medians 9000].

Compares searches with and without the admission of `CacheRoom`. The searches are those of the product; the engines
of recipe `vgs` are simulated, with LRU prefix caches of the sizes that they have on a GPU. Each
step adds a token to each running sequence, lengths are log-normal up to 16,384 tokens, and values are random. The simulated
policy knows the length of a block before it starts it. So it never preempts a sequence, which vLLM would have to read again.

Out: tokens that each engine reads again for each generated one, and the mean number of running sequences. No GPU is needed.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
from collections import Counter, OrderedDict
from dataclasses import replace
from itertools import product
from statistics import NormalDist
from typing import Any, NamedTuple

from pipelines.recipes import vgs
from vgs_ray.config import Beam, Engine, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Score, Usage, Value
from vgs_ray.evaluate.accelerators import ACCELERATORS
from vgs_ray.evaluate.engine_memory import OVERHEAD_GIB, cache_gib, weights_gib
from vgs_ray.evaluate.estimate import KNOWN_CONFIGS
from vgs_ray.search.cache_room import CacheRoom
from vgs_ray.search.explore import beam, sample

UNIT = 64
"""Tokens that one simulated token stands for. With 16, a cache block of vLLM, it takes four times as long and finds the same."""
PROMPT, LONGEST = 192, 16_384
SIGMA = 0.6
"""Of the logarithm of the length of an answer."""


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next event instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        select = self._selector.select  # type: ignore[attr-defined]

        def jump(timeout: float | None) -> Any:
            self._now += timeout or 0.0
            return select(0)

        self._selector.select = jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now


class PrefixCache:
    """The blocks of running sequences, and others, which are evicted in the order of their last use. A token names its prefix."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.used: Counter[Any] = Counter()
        self._unused: OrderedDict[Any, None] = OrderedDict()

    def cached(self, tokens: Tokens) -> int:
        """Length of the longest cached prefix."""
        missing = (at for at, token in enumerate(tokens) if token not in self.used and token not in self._unused)
        return next(missing, len(tokens))

    def take(self, tokens: Tokens) -> None:
        for token in tokens:
            self._unused.pop(token, None)
        self.used.update(tokens)
        while self._unused and len(self.used) + len(self._unused) > self.blocks:
            self._unused.popitem(last=False)

    def give_back(self, tokens: Tokens) -> None:
        """As vLLM: the end of a sequence is evicted before its beginning."""
        for token in reversed(tokens):
            self.used[token] -= 1
            if not self.used[token]:
                del self.used[token]
                self._unused[token] = None


class SimulatedPolicy:
    """A `Policy` that runs sequences in the order of their arrival, as far as `max_num_seqs` and the cache allow."""

    def __init__(self, cache: PrefixCache, sequences: int, median: float) -> None:
        self.usage, self._cache, self._sequences, self._running = Usage(), cache, sequences, 0
        self._lengths = NormalDist(math.log(median / UNIT), SIGMA)
        self._turn, self._ended = asyncio.Lock(), asyncio.Event()

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        draw = random.Random(seed)
        length = min(self._rest(len(prefix) - PROMPT // UNIT, draw.random()), sampling.max_tokens)
        new = tuple(draw.getrandbits(60) for _ in range(length))
        async with self._turn:
            needed = length + sum(token not in self._cache.used for token in prefix)
            while self._running and (
                self._running == self._sequences or len(self._cache.used) + needed > self._cache.blocks
            ):
                self._ended.clear()
                await self._ended.wait()
            read = len(prefix) - self._cache.cached(prefix)
            self._running += 1
            self._cache.take(prefix + new)
        await asyncio.sleep(length)
        self._cache.give_back(prefix + new)
        self._running -= 1
        self._ended.set()
        self.usage.generated += length
        self.usage.prefilled += read
        finished = length < sampling.max_tokens
        return Completion(new, finished, "stop" if finished else "length", 0.0, read)

    def _rest(self, before: int, share: float) -> int:
        """Blocks that follow, for an answer that has not ended after `before` of them."""
        ended = self._lengths.cdf(math.log(before)) if before else 0.0
        total = math.exp(self._lengths.inv_cdf(min(ended + share * (1 - ended), 1 - 1e-9)))
        return max(1, round(total) - before)


class SimulatedValue(Value):
    """A `Value` whose scores take no time."""

    def __init__(self, cache: PrefixCache) -> None:
        self.usage, self._cache = Usage(), cache

    async def score(self, tokens: Tokens) -> Score:
        read = len(tokens) - self._cache.cached(tokens)
        self._cache.take(tokens)
        self._cache.give_back(tokens)
        self.usage.scored += read
        return Score(random.Random(tokens[-1]).random(), (), read)


class Counts(NamedTuple):
    """Tokens that the policy and the value model read again for each generated one, and the mean number of running sequences."""

    policy: float
    value: float
    sequences: float

    @property
    def forwarded(self) -> float:
        """Generated tokens, and those read again, for each generated one."""
        return 1 + self.policy + self.value

    def __str__(self) -> str:
        return f"{self.policy:.2f} | {self.value:.2f} | {self.forwarded:.2f} | {self.sequences:.0f}"


def cache_blocks(engine: Engine, gib: float) -> int:
    """Size of the KV cache of a 1.5B model."""
    config = KNOWN_CONFIGS[vgs().policy.model]
    free = gib * engine.gpu_memory_utilization - weights_gib(config, engine) - OVERHEAD_GIB
    return int(free / cache_gib(config, engine, 1) * engine.max_model_len / UNIT)


def simulate(
    gpu: str, budget: int, problems: int, admission: bool, samples: bool = True, median: float = 9000.0
) -> Counts:
    """Run the searches of the recipe at a budget: for each problem a guided search and, with `samples`, independent answers."""
    config = vgs().evaluate
    shape = replace(
        config.beam, block=config.beam.block // UNIT, groups=budget // replace(config.beam, groups=1).budget
    )
    blocks = [cache_blocks(engine, ACCELERATORS[gpu].gib) for engine in (config.policy_engine, config.value_engine)]
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        policy = SimulatedPolicy(PrefixCache(blocks[0]), config.policy_engine.max_num_seqs, median)
        value = SimulatedValue(PrefixCache(blocks[1]))
        room = CacheRoom(min(blocks), config.policy_engine.max_num_seqs) if admission else None
        runner.run(search_all(policy, value, shape, problems, room, samples))
        seconds, generated = runner.get_loop().time(), policy.usage.generated
    return Counts(policy.usage.prefilled / generated, value.usage.scored / generated - 1, generated / seconds)


async def search_all(
    policy: SimulatedPolicy, value: SimulatedValue, shape: Beam, problems: int, room: CacheRoom | None, samples: bool
) -> None:
    sampling = Sampling(max_tokens=LONGEST // UNIT)
    searches = []
    for problem in range(problems):
        prompt: Any = tuple((problem, at) for at in range(PROMPT // UNIT))
        if samples:
            searches.append(
                sample(policy, value, prompt, count=shape.budget, sampling=sampling, seed=-1 - problem, room=room)
            )
        searches.append(beam(policy, value, prompt, beam=shape, sampling=sampling, seed=problem, room=room))
    await asyncio.gather(*searches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument(
        "--medians", type=float, nargs="+", default=[9000.0], help="median lengths of answers, in tokens"
    )
    options = parser.parse_args()
    print("| GPU | median answer | budget | searches | admission | policy | value | forwarded | sequences |")
    print("|---|---|---|---|---|---|---|---|---|")
    cases = product(("H100", "L40S"), options.medians, (128, 256), (False, True), (False, True))
    for gpu, median, budget, samples, admission in cases:
        counts = simulate(gpu, budget, options.problems, admission, samples, median)
        searches = "guided and samples" if samples else "guided"
        print(
            f"| {gpu} | {median:,.0f} | {budget} | {searches} | {'yes' if admission else 'no'} | {counts} |", flush=True
        )


if __name__ == "__main__":
    main()
