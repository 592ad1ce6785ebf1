#!/usr/bin/env python
"""Run a stage with scripted engines, slow judges and a log of the rows: scripted_command.py -m pipelines.STAGE RECIPE ...

`VGS_PYTHON` of jobs/submit.sh may name this file. Everything but the engines is what the stage runs. A row takes up to `ROW_S`
seconds. The file `VGS_DRILL_LOG` gets a line for each row when it is made, so rows that are made twice have two lines.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import sys
import time
from typing import Any

sys.path.insert(0, os.getcwd())  # the job's copy of the checkout, as with `python -m`

import pyarrow as pa

from pipelines import evaluate, verify
from pipelines.actors import sampling, searching
from pipelines.cli import cli
from vgs_ray.config import Engine, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines import Engines
from vgs_ray.engines.interface import Completion, Usage
from vgs_ray.engines.random_value import RandomValue

ROW_S = float(os.environ.get("VGS_DRILL_ROW_S", "4"))
LOG = os.environ.get("VGS_DRILL_LOG", os.devnull)
VOCABULARY = 40
JUDGED_ROWS = 64


class RandomPolicy:
    """A `Policy` whose tokens are a function of the seed."""

    def __init__(self, model: str = "", engine: Engine | None = None, logprobs: bool = True) -> None:
        self.usage = Usage()

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        draw = random.Random(seed)
        await asyncio.sleep(draw.random() * ROW_S)
        tokens = tuple(draw.randrange(VOCABULARY) for _ in range(draw.randint(1, sampling.max_tokens)))
        self.usage.generated += len(tokens)
        return Completion(tokens, True, "stop", -1.0, len(prefix))

    def close(self) -> None:
        """Nothing to free."""


def record(ids: list[str]) -> None:
    with open(LOG, "a") as log:
        log.write("".join(f"{each}\n" for each in ids))


class ScriptedSampling(sampling.SamplingActor):
    """A `SamplingActor` with a `RandomPolicy`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        sampling.build_policy = RandomPolicy
        super().__init__(*arguments, **options)

    async def _sample(self, request: dict[str, Any]) -> dict[str, Any]:
        row = await super()._sample(request)
        record([request.get("roll_out_id") or request["roll_in_id"]])
        return row


class ScriptedSearch(searching.SearchActor):
    """A `SearchActor` with a `RandomPolicy` and random values."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        searching.build_engines = lambda *_: Engines(RandomPolicy(), RandomValue())
        super().__init__(*arguments, **options)

    async def _search_and_grade(self, row: dict[str, Any]) -> dict[str, Any]:
        found = await super()._search_and_grade(row)
        record([row["search_id"]])
        return found


class SlowJudge(verify.JudgeActor):
    """A `JudgeActor` whose batches take `ROW_S` seconds more."""

    def __call__(self, item: dict[str, Any]) -> pa.Table:
        time.sleep(ROW_S)
        rows = super().__call__(item)
        record(rows["roll_out_id"].to_pylist())
        return rows


def main() -> None:
    command = sys.argv[2]
    sampling.SamplingActor, evaluate.SearchActor, verify.JudgeActor = ScriptedSampling, ScriptedSearch, SlowJudge
    verify.BATCH_ROWS = JUDGED_ROWS
    sys.argv[1:3] = []
    stage = importlib.import_module(command)
    if command == "pipelines.evaluate":
        cli(stage.main, command, flags=stage.Flags())
    else:
        cli(stage.run, command)


if __name__ == "__main__":
    main()
