"""Asynchronous guided search against a lockstep loop: python bench/search.py [--problems 40] [--rounds 3].

Both run the sandbox's policy and a value model on its backbone, the same problems, seeds, beams and in-process engines, and
keep the same beams. The loop is our own stand-in for the usual way: one barrier over all problems and beams for every block,
then each prefix scored from scratch, one at a time, and every final beam once more. Out: seconds of each in turns with the
ratio of the medians, and forwarded value tokens over generated ones by the engines' counters, also at blocks of a realistic
length.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from engine import random_model

from vgs_ray.config import Beam, Engine, Sampling
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines import build_policy, build_value
from vgs_ray.models import model_path
from vgs_ray.prompts import load_tokenizer, prompt_tokens
from vgs_ray.sandbox.rows import benchmark_rows
from vgs_ray.search.explore import beam
from vgs_ray.value.model import ValueModel

Answers = list[list[Tokens]]


class Engines:
    """A policy and a value model side by side, and what they forwarded."""

    def __init__(self, model: str, folder: Path, engine: Engine) -> None:
        ValueModel.from_backbone(model, seed=1).save_pretrained(folder)
        self.policy: Any = build_policy(model, engine)
        self.value: Any = build_value(str(folder), engine)

    def forget(self) -> None:
        for each in (self.policy, self.value):
            each.loop.engine.reset_prefix_cache()

    def forwarded(self) -> tuple[int, int]:
        """Tokens that the value model forwarded, and that the policy generated."""
        return self.value.usage.scored, self.policy.usage.generated

    def close(self) -> None:
        self.policy.close()
        self.value.close()


async def searched(engines: Engines, prompts: Sequence[Tokens], shape: Beam, sampling: Sampling) -> Answers:
    """Ours: every problem for itself, and within it every beam."""
    trees = await asyncio.gather(
        *(
            beam(engines.policy, engines.value, prompt, beam=shape, sampling=sampling, seed=seed)
            for seed, prompt in enumerate(prompts)
        )
    )
    return [sorted(tree.path(leaf.id) for leaf in tree.leaves()) for tree in trees]


async def lockstep(engines: Engines, prompts: Sequence[Tokens], shape: Beam, sampling: Sampling) -> Answers:
    """The usual way, with the same seeds: groups of all problems take one block together."""
    limit, width = sampling.max_tokens, shape.keep * shape.branch
    lanes = [(problem, group) for problem in range(len(prompts)) for group in range(shape.groups)]
    live: dict[tuple[int, int], list[Tokens]] = {lane: [()] * shape.keep for lane in lanes}
    ended: dict[tuple[int, int], list[Tokens]] = {lane: [] for lane in lanes}
    round = 0
    while any(live.values()):
        wanted = [
            (lane, at, index, prefix)
            for lane in lanes
            for index, (at, prefix) in enumerate(
                (at, p) for at, p in enumerate(live[lane]) for _ in range(shape.branch)
            )
        ]

        async def block(lane: tuple[int, int], index: int, prefix: Tokens, round: int = round) -> Any:
            room = Sampling(sampling.temperature, sampling.top_p, min(shape.block, limit - len(prefix)))
            seed = stable_seed(lane[0], round, lane[1] * width + index)
            return await engines.policy.extend(prompts[lane[0]] + prefix, room, seed)

        made = await asyncio.gather(*(block(lane, index, prefix) for lane, _, index, prefix in wanted))
        found: dict[tuple[int, int], list[tuple[float, int, Tokens, bool]]] = {lane: [] for lane in lanes}
        for (lane, _, index, prefix), new in zip(wanted, made, strict=True):
            whole = prefix + new.tokens
            value = await from_scratch(engines, prompts[lane[0]] + whole)
            found[lane].append((-value, index, whole, new.finished or len(whole) >= limit))
        for lane in lanes:
            best = sorted(sorted(found[lane])[: len(live[lane])], key=lambda each: each[1])
            ended[lane] += [whole for _, _, whole, done in best if done]
            live[lane] = [whole for _, _, whole, done in best if not done]
        round += 1
    for (problem, _), answers in ended.items():
        for answer in answers:
            await from_scratch(engines, prompts[problem] + answer)
    return [
        sorted(answer for group in range(shape.groups) for answer in ended[at, group]) for at in range(len(prompts))
    ]


async def from_scratch(engines: Engines, tokens: Tokens) -> float:
    engines.value.loop.engine.reset_prefix_cache()
    return float((await engines.value.score(tokens)).value)


def timed(search: Callable[..., Awaitable[Answers]], engines: Engines, *arguments: Any) -> tuple[float, float, Answers]:
    """Seconds, forwarded value tokens over generated ones, and what was found."""
    engines.forget()
    scored, generated = engines.forwarded()
    began = time.perf_counter()
    answers = asyncio.run(search(engines, *arguments))  # type: ignore[arg-type]
    seconds, after = time.perf_counter() - began, engines.forwarded()
    return seconds, (after[0] - scored) / (after[1] - generated), answers


def compare(problems: int, rounds: int, folder: Path) -> None:
    """Both ways on the sandbox."""
    engine = Engine(
        max_model_len=512,
        max_num_seqs=512,
        kv_cache_gib=0.5,
        dtype="float32",
        enforce_eager=True,
        threads=1,
    )
    model = model_path("sandbox:ref")
    engines, tokenizer = Engines(model, folder, engine), load_tokenizer(model)
    prompts = [prompt_tokens(tokenizer, row["problem"]) for row in benchmark_rows(problems)]
    shape, sampling = Beam(keep=2, branch=2, block=48, groups=4), Sampling(1.0, 1.0, 192)
    timed(searched, engines, prompts[:2], shape, sampling)  # the first steps are slow
    seconds: dict[str, list[float]] = {"asynchronous": [], "lockstep": []}
    answers: dict[str, Answers] = {}
    for number in range(rounds):
        for name, search in (("asynchronous", searched), ("lockstep", lockstep)):
            took, ratio, answers[name] = timed(search, engines, prompts, shape, sampling)
            seconds[name].append(took)
            print(
                f"round {number + 1}: {name:13}{took:7.1f} s, {ratio:5.2f} value tokens forwarded a generated one",
                flush=True,
            )
    same = sum(a == b for a, b in zip(answers["asynchronous"], answers["lockstep"], strict=True))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(
        f"{problems} problems, blocks of {shape.block}: {medians['lockstep'] / medians['asynchronous']:.2f} times as fast"
    )
    print(f"problems with the same answers from both: {same} of {problems}")
    engines.close()


def long_blocks(problems: int, block: int, folder: Path) -> None:
    """Four blocks of a realistic length, from a random policy that does not end."""
    length = 64 + 4 * block
    engine = Engine(
        max_model_len=length,
        max_num_seqs=64,
        kv_cache_gib=1.0,
        dtype="float32",
        enforce_eager=True,
        threads=1,
    )
    engines = Engines(random_model(folder / "policy", positions=length, ends=False), folder / "value", engine)
    prompts = [tuple(range(3 + at, 63 + at)) for at in range(problems)]
    shape, sampling = Beam(keep=2, branch=2, block=block), Sampling(1.0, 1.0, 4 * block)
    seconds, ratio, _ = timed(searched, engines, prompts, shape, sampling)
    # Each of the four reads the prompt and all blocks so far, and the last one is read again.
    published = sum(60 + n * block for n in (1, 2, 3, 4)) / (4 * block) + (60 + 4 * block) / 2 / (4 * block)
    print(
        f"{problems} problems, 4 blocks of {block} ({seconds:.0f} s): {ratio:.3f} value tokens forwarded a generated one"
    )
    print(f"each prefix from scratch, and final beams twice: {published:.2f}")
    engines.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long-block", type=int, default=512, help="tokens of a block in the second part")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments.problems, arguments.rounds, Path(folder) / "sandbox")
        long_blocks(4, arguments.long_block, Path(folder) / "long")


if __name__ == "__main__":
    main()
