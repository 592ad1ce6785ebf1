"""Sampling in Ray actors: the one path that roll-ins and roll-outs take through a policy.

In: rows with `prefix` (tokens), `seed` and `max_tokens`, whatever else they carry. Out: durable rows with `tokens`,
`finish_reason` and `error`, and one line of counts for each block. A failed sample is a row with a reason; an actor whose
engine died ends, and Ray starts another one that goes on with the block.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
import ray

from pipelines.actors.durable import Durable
from pipelines.actors.engine_start import engine_version, start_errors, start_slot
from pipelines.actors.journal import FLUSH_S
from pipelines.tables.stage_table import StageTable
from vgs_ray.config import Engine, Resources, Sampling
from vgs_ray.engines import build_policy
from vgs_ray.engines.interface import Usage
from vgs_ray.errors import UserError
from vgs_ray.models import model_path

BLOCK_ROWS = 128
IN_FLIGHT = 6
FEWEST_FOR_A_RATE = 200
"""Rows before a rate of errors means anything."""


class Generate:
    """An actor that holds one policy engine and extends the rows of a batch together."""

    def __init__(self, model: str, engine: Engine, resources: Resources, sampling: Sampling, out: StageTable) -> None:
        with start_slot(resources), start_errors(model):
            self.policy = build_policy(model_path(model), engine, logprobs=False)
        self.sampling, self.out = sampling, out
        self.made = {"engine": engine_version(), "sampling": json.dumps(asdict(sampling), sort_keys=True)}
        self.told = Usage()

    async def __call__(self, batch: pa.Table) -> pa.Table:
        began = time.time()
        done = await Durable(self.out, self._row, self._failed, FLUSH_S).finish(batch)
        counts = {**done, **self._new_usage(), "began": began, "ended": time.time()}
        return pa.table({name: [value] for name, value in counts.items()})

    def _new_usage(self) -> dict[str, int]:
        """Tokens that the engine forwarded since this was last asked."""
        now, before = asdict(self.policy.usage), asdict(self.told)
        self.told = Usage(**now)
        return {name: now[name] - before[name] for name in ("generated", "prefilled", "cached")}

    async def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        sampling = replace(self.sampling, max_tokens=row["max_tokens"])
        try:
            done = await self.policy.extend(tuple(row["prefix"]), sampling, row["seed"])
        except ValueError as error:
            return self._failed(row, str(error))
        result = {"tokens": list(done.tokens), "finish_reason": done.finish_reason, "error": None}
        return {**row, **self.made, **result}

    def _failed(self, row: dict[str, Any], reason: str) -> dict[str, Any]:
        return {**row, **self.made, "tokens": [], "finish_reason": "error", "error": reason}


class Totals:
    """Counts of the blocks that this command finished.

    Attributes:
        rows, errors: rows, and those with an error.
        generated, prefilled, cached: tokens; a cached one was part of a prefix that the engine still had.
        began, ended: seconds since the epoch of the first block's start and the last one's end.
    """

    def __init__(self, stage: str, max_error_share: float) -> None:
        self.stage, self.max_error_share = stage, max_error_share
        self.rows = self.errors = self.generated = self.prefilled = self.cached = 0
        self.began, self.ended = math.inf, 0.0

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens a second of all replicas together, without the engines' start."""
        return self.generated / (self.ended - self.began) if self.ended > self.began else 0.0

    def speed(self) -> dict[str, Any]:
        """For the manifest; empty when every row was durable before."""
        if not self.rows:
            return {}
        share = self.cached / (self.cached + self.prefilled) if self.cached else 0.0
        return {"tokens_per_s": round(self.tokens_per_s), "cached_share_of_prompts": round(share, 3)}

    def note(self) -> str:
        """For the progress line."""
        return f"{self.tokens_per_s:,.0f} tok/s" + (f", {self.errors} errors" if self.errors else "")

    def consume(self, blocks: ray.data.Dataset) -> None:
        """Run the data set to its end.

        Raises:
            UserError: the share of rows with an error is over the limit.
        """
        for block in blocks.iter_rows():
            for name in ("rows", "errors", "generated", "prefilled", "cached"):
                setattr(self, name, getattr(self, name) + block[name])
            self.began, self.ended = min(self.began, block["began"]), max(self.ended, block["ended"])
            if self.rows >= FEWEST_FOR_A_RATE and self.errors > self.max_error_share * self.rows:
                raise UserError(
                    f"{self.errors} of {self.rows} rows failed, and {self.stage}.max_error_share is {self.max_error_share}; the "
                    "column `error` of the table has the reasons. To keep the failed rows, run the command again with a "
                    f"higher --{self.stage.replace('_', '-')}.max-error-share; to sample them again, remove the stage's folder"
                )


def _check_nodes(resources: Resources) -> None:
    most = max(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
    if most < resources.num_cpus + 1:
        raise UserError(
            f"the largest node has {most:g} CPUs, and an engine takes {resources.num_cpus:g} of them; Ray Data's own tasks need "
            "one more: start nodes with more CPUs (ray start --num-cpus) or lower resources.num_cpus"
        )


def generate(
    requests: ray.data.Dataset, model: str, engine: Engine, resources: Resources, sampling: Sampling, out: StageTable
) -> ray.data.Dataset:
    """Extend every request by a policy that runs in `resources.replicas` actors, which write the rows to `out`.

    An actor holds `IN_FLIGHT` times the rows that its engine batches: a block stays until its longest sequence ends, and while
    that one runs, an engine passes its batch times longest over mean length. With fewer blocks it would run half empty.

    Raises:
        UserError: no node can hold an engine and a task beside it; Ray would wait without end.
    """
    _check_nodes(resources)
    return requests.repartition(target_num_rows_per_block=BLOCK_ROWS).map_batches(
        Generate,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            size=resources.replicas,
            max_concurrent_calls_per_actor=math.ceil(IN_FLIGHT * engine.max_num_seqs / BLOCK_ROWS),
        ),
        num_cpus=resources.num_cpus,
        num_gpus=resources.num_gpus,
        fn_constructor_kwargs={
            "model": model,
            "engine": engine,
            "resources": resources,
            "sampling": sampling,
            "out": out,
        },
    )
