"""Sampling in Ray actors: the one path that roll-ins and roll-outs take through a policy.

In: rows with `prefix` (tokens), `seed` and `max_tokens`, whatever else they carry. Out: the same rows with `tokens`,
`finish_reason` and `error`. A failed sample is a row with a reason; a dead engine fails the actor.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
import ray

from vgs_ray.config import Engine, Sampling
from vgs_ray.engines import build_policy
from vgs_ray.sandbox import model_path
from vgs_ray.schemas import TOKENS

BLOCK_ROWS = 256
RESULT = (pa.field("tokens", TOKENS), pa.field("finish_reason", pa.string()), pa.field("error", pa.string()))


class Generate:
    """An actor that holds one policy engine and extends the rows of a batch together."""

    def __init__(self, model: str, engine: Engine, sampling: Sampling) -> None:
        self.policy = build_policy(model_path(model), engine)
        self.sampling = sampling

    async def __call__(self, batch: pa.Table) -> pa.Table:
        requests = batch.select(["prefix", "seed", "max_tokens"]).to_pylist()
        results = await asyncio.gather(*(self._extend(**request) for request in requests))
        batch = batch.drop_columns(["prefix", "max_tokens"])
        for field in RESULT:
            batch = batch.append_column(field, pa.array([row[field.name] for row in results], field.type))
        return batch

    async def _extend(self, prefix: list[int], seed: int, max_tokens: int) -> dict[str, Any]:
        try:
            done = await self.policy.extend(tuple(prefix), replace(self.sampling, max_tokens=max_tokens), seed)
        except ValueError as error:
            return {"tokens": [], "finish_reason": "error", "error": str(error)}
        return {"tokens": list(done.tokens), "finish_reason": done.finish_reason, "error": None}


def generate(requests: ray.data.Dataset, model: str, engine: Engine, sampling: Sampling) -> ray.data.Dataset:
    """Extend every request by a policy that runs in `engine.replicas` actors.

    Two blocks are in an actor at a time, so that the engine has work while the last sequences of one of them finish.
    """
    return requests.repartition(target_num_rows_per_block=BLOCK_ROWS).map_batches(
        Generate,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=engine.replicas, max_concurrent_calls_per_actor=2),
        num_cpus=engine.num_cpus,
        num_gpus=engine.num_gpus,
        fn_constructor_kwargs={"model": model, "engine": engine, "sampling": sampling},
    )


def sampling_json(sampling: Sampling) -> str:
    return json.dumps(asdict(sampling), sort_keys=True)
