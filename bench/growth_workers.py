"""Workers of bench/growth.py: an engine, a judge and labels that sleep, so that a node makes a fixed number of rows a second."""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from synthetic import ANSWERS, BOX, CLOSED, END

from vgs_ray import engines
from vgs_ray.answers import judge
from vgs_ray.answers.compare import Comparison
from vgs_ray.config import Engine, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Usage
from vgs_ray.engines.random_value import RandomValue
from vgs_ray.grade import Verdict

FOLDER, NODES = "VGS_GROWTH_FOLDER", "VGS_GROWTH_NODES"
"""Environment variables: the folder where processes note when they made rows, and the number of nodes."""
ROWS_PER_S = 50.0
"""Of a node."""
CPUS = 2
"""Of a node, and so its tasks at a time."""
MEAN_TOKENS, SIGMA = 200, 0.7
START_S = 120.0


def note(rows: int) -> None:
    """Note the rows that this process has just made."""
    with (Path(os.environ[FOLDER]) / f"{os.getpid()}.rows").open("a") as file:
        file.write(f"{time.time()} {rows}\n")


def install() -> None:
    """Hook of worker processes."""
    engines.build_policy = SleepingPolicy  # type: ignore[assignment]
    engines.build_engines = sleeping_engines  # type: ignore[assignment]
    judge.Judge = SleepingJudge  # type: ignore[assignment, misc]


def sleeping_engines(policy: str, value: str, *settings: Engine) -> tuple[SleepingPolicy, RandomValue]:
    return SleepingPolicy(policy, settings[0]), RandomValue()


@dataclass
class SleepingPolicy:
    """A policy whose full batch makes `ROWS_PER_S` completions of the mean length. Lengths are log-normal."""

    model: str
    engine: Engine
    logprobs: bool = True
    shared: bool = False
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        self._batch = asyncio.Semaphore(self.engine.max_num_seqs)
        self._token_s = self.engine.max_num_seqs / (ROWS_PER_S * MEAN_TOKENS)
        self._folder = Path(os.environ[FOLDER])
        (self._folder / f"{os.getpid()}.engine").touch()
        self._deadline = time.monotonic() + START_S

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        while self._deadline and not self._all_started():
            await asyncio.sleep(0.2)
        self._deadline = 0.0
        draw = random.Random(seed)
        length = round(draw.lognormvariate(math.log(MEAN_TOKENS) - SIGMA**2 / 2, SIGMA))
        finished = length < sampling.max_tokens - 3
        body = tuple(range(min(max(length, 1), sampling.max_tokens)))
        tokens = (*body, END, CLOSED, BOX + draw.randrange(ANSWERS)) if finished else body
        async with self._batch:
            await asyncio.sleep(len(tokens) * self._token_s)
        self.usage.generated += len(tokens)
        note(1)
        return Completion(tokens, finished, "stop" if finished else "length", -1.0, len(prefix))

    def _all_started(self) -> bool:
        """Whether every node has its engine, so that its start does not count as slow work."""
        started = len(list(self._folder.glob("*.engine")))
        return started >= int(os.environ[NODES]) or time.monotonic() > self._deadline


class SleepingJudge:
    """A judge of one node, which makes `ROWS_PER_S` comparisons."""

    def __init__(self, **_: Any) -> None:
        """It has no processes."""

    def judge_pairs(self, pairs: Iterable[judge.Pair]) -> dict[judge.Pair, Comparison]:
        every = list(pairs)
        time.sleep(len(every) / ROWS_PER_S)
        note(len(every))
        return {pair: Comparison(pair[0] == pair[1], "scripted") for pair in every}

    def grade_all(self, responses: Iterable[tuple[str, str]]) -> list[Verdict]:
        return [Verdict("incorrect", "scripted", "0") for _ in responses]

    def close(self) -> None:
        """Nothing runs."""


def label_slowly(batch: Any, **arguments: Any) -> pa.Table:
    """`label_problems` in one of the tasks of a node."""
    from pipelines.label import label_problems

    labels = label_problems(batch, **arguments)
    time.sleep(len(labels) * CPUS / ROWS_PER_S)
    note(len(labels))
    return labels
