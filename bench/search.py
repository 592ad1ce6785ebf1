"""Asynchronous guided search against a lockstep loop: python bench/search.py [--problems 40] [--rounds 3].

Both use the sandbox's policy, a value model on its backbone, the same problems, seeds, beams and in-process engines, and keep the
same beams. The loop is our stand-in for the usual implementation. It has one barrier over all problems and beams for each block;
then each prefix is scored from scratch, one at a time, and each final beam once more. Out: seconds of both with the ratio of the
medians, and the tokens that policy and value model forwarded for each generated token, also with blocks of a realistic length.
`--align` ends blocks where the engines' cache blocks end, in both.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine import random_model

from vgs_ray.config import Beam, Engine, Sampling
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines import build_policy, build_value
from vgs_ray.engines.facts import cache_block
from vgs_ray.engines.interface import Completion
from vgs_ray.models import model_path
from vgs_ray.prompts import load_tokenizer, prompt_tokens
from vgs_ray.sandbox.rows import benchmark_rows
from vgs_ray.search.blocks import aligned_length
from vgs_ray.search.explore import beam
from vgs_ray.value.model import ValueModel

Answers = list[list[Tokens]]


class Engines:
    """A policy and a value model in this process."""

    def __init__(self, model: str, folder: Path, engine: Engine) -> None:
        ValueModel.from_backbone(model, seed=1).save_pretrained(folder)
        self.policy: Any = build_policy(model, engine)
        self.value: Any = build_value(str(folder), engine)

    def reset_caches(self) -> None:
        for engine in (self.policy, self.value):
            engine.loop.engine.reset_prefix_cache()

    def tokens(self) -> tuple[int, int, int]:
        """Tokens that the policy generated, prefix tokens that it forwarded, and tokens that the value model forwarded."""
        return self.policy.usage.generated, self.policy.usage.prefilled, self.value.usage.scored

    @property
    def cache_block(self) -> int:
        return cache_block(self.policy, self.value)

    async def score_from_scratch(self, tokens: Tokens) -> float:
        self.value.loop.engine.reset_prefix_cache()
        return float((await self.value.score(tokens)).value)

    def close(self) -> None:
        self.policy.close()
        self.value.close()


async def asynchronous(engines: Engines, prompts: Sequence[Tokens], shape: Beam, sampling: Sampling) -> Answers:
    """Our search: no problem and no beam waits for another."""
    trees = await asyncio.gather(
        *(
            beam(
                engines.policy,
                engines.value,
                prompt,
                beam=shape,
                sampling=sampling,
                seed=seed,
                cache_block=engines.cache_block,
            )
            for seed, prompt in enumerate(prompts)
        )
    )
    return [sorted(tree.path(leaf.id) for leaf in tree.leaves()) for tree in trees]


class Lane(NamedTuple):
    """One group of one problem."""

    problem: int
    group: int


class Candidate(NamedTuple):
    index: int
    response: Tokens
    value: float
    ended: bool


async def lockstep(engines: Engines, prompts: Sequence[Tokens], shape: Beam, sampling: Sampling) -> Answers:
    """The usual implementation, with the same seeds: all groups of all problems take one block together."""
    lanes = [Lane(problem, group) for problem in range(len(prompts)) for group in range(shape.groups)]
    live: dict[Lane, list[Tokens]] = {lane: [()] * shape.keep for lane in lanes}
    ended: dict[Lane, list[Tokens]] = {lane: [] for lane in lanes}
    round = 0
    while any(live.values()):
        candidates = await lockstep_round(engines, prompts, shape, sampling, live, round)
        for lane in lanes:
            best = sorted(candidates[lane], key=lambda each: (-each.value, each.index))[: len(live[lane])]
            kept = sorted(best, key=lambda each: each.index)
            ended[lane] += [each.response for each in kept if each.ended]
            live[lane] = [each.response for each in kept if not each.ended]
        round += 1
    for lane, answers in ended.items():
        for answer in answers:
            await engines.score_from_scratch(prompts[lane.problem] + answer)
    return [
        sorted(answer for group in range(shape.groups) for answer in ended[Lane(problem, group)])
        for problem in range(len(prompts))
    ]


async def lockstep_round(
    engines: Engines,
    prompts: Sequence[Tokens],
    shape: Beam,
    sampling: Sampling,
    live: dict[Lane, list[Tokens]],
    round: int,
) -> dict[Lane, list[Candidate]]:
    """Extend each live prefix by one block, wait for all blocks, then score them one at a time."""
    limit, width = sampling.max_tokens, shape.keep * shape.branch
    branches = {lane: [prefix for prefix in prefixes for _ in range(shape.branch)] for lane, prefixes in live.items()}
    calls = [(lane, index, prefix) for lane, prefixes in branches.items() for index, prefix in enumerate(prefixes)]

    async def block(lane: Lane, index: int, prefix: Tokens) -> Completion:
        before, left = prompts[lane.problem] + prefix, limit - len(prefix)
        aligned = aligned_length(len(before), shape.block, engines.cache_block if shape.align else 1)
        limits = Sampling(sampling.temperature, sampling.top_p, left if shape.block >= left else min(aligned, left))
        seed = stable_seed(lane.problem, round, lane.group * width + index)
        completion: Completion = await engines.policy.extend(before, limits, seed)
        return completion

    completions = await asyncio.gather(*(block(*call) for call in calls))
    candidates: dict[Lane, list[Candidate]] = {lane: [] for lane in live}
    for (lane, index, prefix), completion in zip(calls, completions, strict=True):
        response = prefix + completion.tokens
        value = await engines.score_from_scratch(prompts[lane.problem] + response)
        ended = completion.finished or len(response) >= limit
        candidates[lane].append(Candidate(index, response, value, ended))
    return candidates


class Timing(NamedTuple):
    """Seconds, also of CPU time, and the tokens that policy and value model forwarded for each generated token."""

    seconds: float
    cpu_seconds: float
    policy: float
    value: float


def timed(search: Callable[..., Awaitable[Answers]], engines: Engines, *arguments: Any) -> tuple[Timing, Answers]:
    engines.reset_caches()
    before = engines.tokens()
    start, cpu_start = time.perf_counter(), time.process_time()
    answers = asyncio.run(search(engines, *arguments))  # type: ignore[arg-type]
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    generated, prefilled, scored = (after - before for after, before in zip(engines.tokens(), before, strict=True))
    return Timing(seconds, cpu_seconds, 1 + prefilled / generated, scored / generated), answers


def cpu_engine(max_model_len: int, max_num_seqs: int, kv_cache_gib: float) -> Engine:
    return Engine(
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        kv_cache_gib=kv_cache_gib,
        dtype="float32",
        enforce_eager=True,
        threads=1,
    )


def compare(problems: int, rounds: int, shape: Beam, folder: Path) -> None:
    """Run both on problems of the sandbox."""
    model = model_path("sandbox:ref")
    engines, tokenizer = Engines(model, folder, cpu_engine(512, 512, 0.5)), load_tokenizer(model)
    prompts = [prompt_tokens(tokenizer, row["problem"]) for row in benchmark_rows(problems)]
    sampling = Sampling(1.0, 1.0, 192)
    timed(asynchronous, engines, prompts[:2], shape, sampling)  # warm-up
    timings: dict[str, list[Timing]] = {"asynchronous": [], "lockstep": []}
    answers: dict[str, Answers] = {}
    for round in range(1, rounds + 1):
        for name, search in (("asynchronous", asynchronous), ("lockstep", lockstep)):
            timing, answers[name] = timed(search, engines, prompts, shape, sampling)
            timings[name].append(timing)
            times = f"{timing.seconds:7.1f} s, {timing.cpu_seconds:6.1f} s of CPU time"
            print(f"round {round}: {name:13}{times}, {ratio_text(timing)}", flush=True)
    equal = sum(a == b for a, b in zip(answers["asynchronous"], answers["lockstep"], strict=True))
    faster = median_of("seconds", timings["lockstep"]) / median_of("seconds", timings["asynchronous"])
    less = median_of("cpu_seconds", timings["lockstep"]) / median_of("cpu_seconds", timings["asynchronous"])
    print(f"{problems} problems, {shape}: {faster:.2f} times as fast, {less:.2f} times in CPU time")
    print(f"problems with equal answers: {equal} of {problems}")
    engines.close()


def median_of(field: str, timings: list[Timing]) -> float:
    return statistics.median(getattr(timing, field) for timing in timings)


def ratio_text(timing: Timing) -> str:
    return f"{timing.policy:.3f} + {timing.value:.3f} tokens forwarded for each generated token"


def long_blocks(problems: int, block: int, align: bool, folder: Path) -> None:
    """Search four blocks of a realistic length, with a random policy that never ends an answer."""
    prompt, length = 60, 64 + 4 * block
    policy = random_model(folder / "policy", positions=length, ends=False)
    engines = Engines(policy, folder / "value", cpu_engine(length, 64, 1.0))
    prompts = [tuple(range(3 + problem, 3 + problem + prompt)) for problem in range(problems)]
    shape, sampling = Beam(keep=2, branch=2, block=block, align=align), Sampling(1.0, 1.0, 4 * block)
    timing, _ = timed(asynchronous, engines, prompts, shape, sampling)
    # Each score reads the prompt and all blocks so far, and half of the last blocks, those of the final beams, are read again.
    from_scratch = sum(prompt + count * block for count in (1, 2, 3, 4)) + (prompt + 4 * block) / 2
    print(f"{problems} problems, 4 blocks of {block} tokens ({timing.seconds:.0f} s): {ratio_text(timing)}")
    print(f"each prefix from scratch, and final beams twice: {from_scratch / (4 * block):.2f}")
    engines.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=int, default=2)
    parser.add_argument("--branch", type=int, default=2)
    parser.add_argument("--block", type=int, default=48)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--align", action="store_true", help="end blocks where the engines' cache blocks end")
    parser.add_argument(
        "--long-block", type=int, default=512, help="tokens of a block in the second part; 0 leaves it out"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shape = Beam(arguments.keep, arguments.branch, arguments.block, arguments.groups, align=arguments.align)
        compare(arguments.problems, arguments.rounds, shape, Path(folder) / "sandbox")
        if arguments.long_block:
            long_blocks(4, arguments.long_block, arguments.align, Path(folder) / "long")


if __name__ == "__main__":
    main()
