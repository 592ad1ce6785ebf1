#!/usr/bin/env python
"""Run a stage with scripted engines, slow judges and a log of the work: scripted_command.py -m pipelines.STAGE RECIPE ...

`VGS_PYTHON` of jobs/submit.sh may name this file. Everything but the engines is what the stage runs. A call of an engine takes up
to `ROW_S` seconds, and an optimizer step `STEP_S` seconds more. The file `VGS_DRILL_LOG` gets a line when a call has ended, so
work that is done twice has two lines.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, os.getcwd())  # the job's copy of the checkout, as with `python -m`

import pyarrow as pa

from pipelines import evaluate, verify
from pipelines.actors import sampling, searching
from pipelines.cli import cli
from vgs_ray.config import Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines import Engines
from vgs_ray.engines.interface import Completion, Usage
from vgs_ray.engines.random_value import RandomValue

STEP_S = 2.0
ROW_S = float(os.environ.get("VGS_DRILL_ROW_S", "4"))
LOG = os.environ.get("VGS_DRILL_LOG", os.devnull)
FIRST, LAST = 7, 177
"""Tokens of the sandbox between which the body of a response is drawn: numbers."""
ANSWER, CLOSE = (6, 229), (232, 1)
"""`</think>`, `\\boxed{` and the end of both; one of ten numbers is between them."""
JUDGED_ROWS = 64


class RandomPolicy:
    """A `Policy` whose tokens are a function of the seed."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.usage = Usage()

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        draw = random.Random(seed)
        await asyncio.sleep(draw.random() * ROW_S)
        record([str(seed)])
        body = (draw.randint(FIRST, LAST) for _ in range(draw.randint(1, 40)))
        tokens = (*body, *ANSWER, FIRST + draw.randrange(10), *CLOSE)
        self.usage.generated += len(tokens)
        return Completion(tokens, True, "stop", -1.0, len(prefix))

    def close(self) -> None:
        """Nothing to free."""


def record(lines: list[str]) -> None:
    with open(LOG, "a") as log:
        log.write("".join(f"{line}\n" for line in lines))


class ScriptedSampling:
    """A `SamplingActor` with a `RandomPolicy`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        sampling.build_policy = RandomPolicy
        self._actor = sampling.SamplingActor(*arguments, **options)

    async def __call__(self, block: pa.Table) -> pa.Table:
        return await self._actor(block)


class ScriptedSearch:
    """A `SearchActor` with a `RandomPolicy` and random values."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        searching.build_engines = lambda *_: Engines(RandomPolicy(), RandomValue())
        self._actor = searching.SearchActor(*arguments, **options)

    async def __call__(self, block: pa.Table) -> pa.Table:
        return await self._actor(block)


class SlowJudge:
    """A `JudgeActor` whose batches take `ROW_S` seconds more, unless all their rows are committed."""

    def __init__(self, *arguments: Any) -> None:
        self._actor = verify.JudgeActor(*arguments)

    def __call__(self, item: dict[str, Any]) -> pa.Table:
        rows = self._actor(item)
        time.sleep(ROW_S if len(rows) else 0.0)
        record(rows["roll_out_id"].to_pylist())
        return rows


def train_slowly(config: dict[str, Any]) -> str:
    """`train_worker` whose steps take `STEP_S` seconds more."""
    from pipelines.actors import training

    make = training._reporter

    def reporter(*arguments: Any) -> Callable[..., None]:
        report = make(*arguments)

        def slow(*step: Any) -> None:
            report(*step)
            time.sleep(STEP_S)

        return slow

    training._reporter = reporter
    return training.train_worker(config)


def main() -> None:
    command = sys.argv.pop(2)
    sys.argv.pop(1)
    stage = importlib.import_module(command)
    # Workers import the modules anew, and find the classes there that are replaced here.
    sampling.SamplingActor, evaluate.SearchActor, verify.JudgeActor = ScriptedSampling, ScriptedSearch, SlowJudge
    verify.BATCH_ROWS = JUDGED_ROWS
    if command == "pipelines.train":
        from pipelines.actors import training  # loads transformers

        training.train_worker = train_slowly
    if command == "pipelines.evaluate":
        cli(stage.main, command, flags=stage.Flags())
    else:
        cli(stage.run, command)


if __name__ == "__main__":
    main()
