"""Sampling in Ray actors, for roll-ins and for roll-outs.

A request is a row with `prefix` (tokens), `seed`, `max_tokens` and columns that are copied to the result. An actor commits
the results with `tokens`, `finish_reason` and `error`, and returns one row of counts for each block. A sample that fails is a
row with an error. An actor whose engine dies ends, and Ray starts another one that continues with the block.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import pyarrow as pa
import ray

from pipelines.actors.block_runner import BlockRunner
from pipelines.actors.engine_start import engine_version, exit_if_stuck, start_errors, start_slot
from pipelines.actors.replica import Replica
from pipelines.actors.usage import UsageReporter
from pipelines.placement import check_engine_nodes, engine_actors, engine_options
from pipelines.tables.stage_table import StageTable
from vgs_ray.config import Beam, Engine, Resources, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines import build_engines, build_policy
from vgs_ray.engines.facts import cache_block, cache_tokens
from vgs_ray.engines.interface import Completion
from vgs_ray.engines.step_times import StepTimes
from vgs_ray.errors import UserError, option_name
from vgs_ray.models import model_path
from vgs_ray.prompts import delimiter_tokens, load_tokenizer
from vgs_ray.search.best_answer import best_answer

BLOCK_ROWS = 128
COMMIT_S = 30.0
IN_FLIGHT = 6
"""Rows of an actor for each sequence of a full batch.

A block stays in its actor until its longest sequence ends. Meanwhile the engine completes its batch (longest length / mean
length) times, so with fewer blocks the batch would be half empty."""
MIN_ROWS_FOR_ERROR_SHARE = 200


class Guide(NamedTuple):
    """A guided search in place of single samples: its shape, its value model, and the engine of that."""

    shape: Beam
    value_model: str
    engine: Engine


class SamplingActor:
    """Holds one policy engine, and samples a completion for each request; or also a value engine, and searches for one."""

    def __init__(
        self,
        model: str,
        engine: Engine,
        resources: Resources,
        sampling: Sampling,
        out: StageTable,
        guide: Guide | None = None,
    ) -> None:
        path, self.value = model_path(model), None
        self._replica = Replica(out.writer, resources.num_gpus)
        with start_slot(resources), start_errors(model, guide.value_model if guide else ""):
            if guide:
                engines = build_engines(path, guide.value_model, engine, guide.engine, guide.shape.needs_logprobs)
                self.policy, self.value = engines
            else:
                self.policy = build_policy(path, engine, logprobs=False)
        exit_if_stuck(self.policy, self.value)
        settings = asdict(sampling) | ({"search": asdict(guide.shape)} if guide else {})
        if guide and guide.shape.delimiter:
            stops = delimiter_tokens(load_tokenizer(path), guide.shape.delimiter)
            sampling = replace(sampling, stop_token_ids=stops)
        self.sampling, self.out, self.guide = sampling, out, guide
        version = "server" if engine.urls else engine_version()
        self._provenance = {"engine": version, "sampling": json.dumps(settings, sort_keys=True)}
        self._usage = UsageReporter(self.policy)
        self._replica.uses(self.policy, self.value)

    async def __call__(self, block: pa.Table) -> pa.Table:
        began = time.time()
        counts = await BlockRunner(self.out, self._sample, self._failed, COMMIT_S, self._replica).run(block)
        row = {**counts, **self._usage.report(), "began": began, "ended": time.time()}
        row["cache_tokens"] = cache_tokens(self.policy)
        return pa.Table.from_pylist([row])

    async def _sample(self, request: dict[str, Any]) -> dict[str, Any]:
        sampling, prefix = replace(self.sampling, max_tokens=request["max_tokens"]), tuple(request["prefix"])
        try:
            completion = await self._complete(prefix, sampling, request["seed"])
        except ValueError as error:
            return self._failed(request, str(error))
        result = {"tokens": list(completion.tokens), "finish_reason": completion.finish_reason, "error": None}
        return {**request, **self._provenance, **result}

    async def _complete(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        if self.guide and self.value:
            engines = self.policy, self.value
            return await best_answer(*engines, prefix, self.guide.shape, sampling, seed, cache_block(*engines))
        return await self.policy.extend(prefix, sampling, seed)

    def _failed(self, request: dict[str, Any], reason: str) -> dict[str, Any]:
        return {**request, **self._provenance, "tokens": [], "finish_reason": "error", "error": reason}


class Totals:
    """Sums over the blocks that this command has run.

    Attributes:
        rows, errors: all rows, and rows with an error.
        generated, prefilled, cached: tokens; a cached token was in a prefix that the engine still had.
        began, ended: when the first block began and the last one ended, in seconds since the epoch.
        times: of the steps of all engines.
        cache_tokens: that the cache of an engine holds; 0 if unknown.
    """

    def __init__(self, stage: str, max_error_share: float) -> None:
        self.stage, self.max_error_share = stage, max_error_share
        self.rows = self.errors = self.generated = self.prefilled = self.cached = 0
        self.began, self.ended = math.inf, 0.0
        self.times, self.cache_tokens = StepTimes(), 0.0

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens a second over all replicas, without the start of the engines."""
        return self.generated / (self.ended - self.began) if self.ended > self.began else 0.0

    def full_tokens_per_s(self, max_num_seqs: int) -> float:
        """Generated tokens a second of one engine with a full batch: `max_num_seqs`, or fewer if its cache holds fewer."""
        tokens = (self.generated + self.prefilled + self.cached) / max(self.rows, 1)
        return self.times.tokens_per_s(min(max_num_seqs, self.cache_tokens / max(tokens, 1)), self.generated)

    def speed(self, max_num_seqs: int = 0) -> dict[str, Any]:
        """Entries of the manifest; empty if earlier commands had committed every row.

        Args:
            max_num_seqs: of an engine, if all rows were sampled by equal engines, one sequence each.
        """
        if not self.rows:
            return {}
        share = self.cached / (self.cached + self.prefilled) if self.cached else 0.0
        speed = {"tokens_per_s": round(self.tokens_per_s), "cached_share_of_prompts": round(share, 3)}
        full = self.full_tokens_per_s(max_num_seqs) if max_num_seqs else 0.0
        return speed | ({"full_engine_tokens_per_s": round(full, 1)} if full else {})

    def note(self) -> str:
        """Text for the progress line."""
        return f"{self.tokens_per_s:,.0f} tok/s" + (f", {self.errors} errors" if self.errors else "")

    def run(self, blocks: ray.data.Dataset) -> None:
        """Run what `sample_blocks` returned, and add up its counts.

        Raises:
            UserError: the share of rows with an error is over the limit.
        """
        for block in blocks.iter_rows():
            for name in ("rows", "errors", "generated", "prefilled", "cached"):
                setattr(self, name, getattr(self, name) + block[name])
            self.began, self.ended = min(self.began, block["began"]), max(self.ended, block["ended"])
            self.times.add_sums(block)
            self.cache_tokens = block.get("cache_tokens", 0.0)
            if self.rows >= MIN_ROWS_FOR_ERROR_SHARE and self.errors > self.max_error_share * self.rows:
                raise UserError(
                    f"{self.errors} of {self.rows} rows failed, and {self.stage}.max_error_share is {self.max_error_share}; the "
                    "column `error` of the table has the reasons. To keep the failed rows, run the command again with a "
                    f"higher {option_name(f'{self.stage}.max_error_share')}; to sample them again, remove the stage's folder"
                )


def sample_blocks(
    requests: ray.data.Dataset,
    model: str,
    engine: Engine,
    resources: Resources,
    sampling: Sampling,
    out: StageTable,
    guide: Guide | None = None,
) -> ray.data.Dataset:
    """Sample a completion for every request in `resources.replicas` actors, which commit the rows to `out`.

    With a `guide`, the completion is the best answer of a search, which samples many sequences at a time.

    Returns:
        The counts of each block, as a lazy dataset; `Totals.run` runs it.

    Raises:
        UserError: no node can hold an actor; Ray would wait forever.
    """
    check_engine_nodes(f"{out.stage.name}.resources", resources)
    width = guide.shape.budget if guide else 1
    calls = math.ceil(IN_FLIGHT * engine.max_num_seqs / (BLOCK_ROWS * width))
    arguments = {
        "model": model, "engine": engine, "resources": resources, "sampling": sampling, "out": out, "guide": guide,
    }  # fmt: skip
    return requests.repartition(target_num_rows_per_block=BLOCK_ROWS).map_batches(
        SamplingActor,
        batch_size=BLOCK_ROWS,  # one batch a block; Ray Data requires a number for actors with GPUs
        batch_format="pyarrow",
        compute=engine_actors(resources.replicas, calls),
        **engine_options(resources),
        fn_constructor_kwargs=arguments,
    )
