"""Search of benchmark problems in Ray actors: the engines of policy and value in one process, as many searches at a time as their
prefix caches hold.

A request has search_id, problem_id, problem, answer and explorer. An actor commits each row of `searches` when its search
ends. A search that fails is a row with an error. An actor whose engine dies ends, and another one repeats its open searches.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import pyarrow as pa

from pipelines.actors.block_runner import BlockRunner
from pipelines.actors.engine_start import exit_if_stuck, start_errors, start_slot
from pipelines.actors.replica import Replica
from pipelines.tables.stage_table import StageTable
from vgs_ray.answers.judge import Judge
from vgs_ray.config import Beam, DeepConf, Mcts, ParticleFilter, Rebase, Recipe, Sampling, Shape
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines import build_engines
from vgs_ray.engines.facts import cache_block, cache_tokens
from vgs_ray.evaluate.graded_search import leaf_rows, leaf_texts
from vgs_ray.grade import extract_answer
from vgs_ray.models import model_path
from vgs_ray.models.checks import evaluated_policy
from vgs_ray.prompts import delimiter_tokens, load_tokenizer, prompt_tokens, response_text
from vgs_ray.search.blocks import fit_to_context
from vgs_ray.search.cache_room import CacheRoom, Hold, Room
from vgs_ray.search.early_stop import EarlyStop
from vgs_ray.search.explore import beam, deepconf, mcts, particle_filter, rebase, sample
from vgs_ray.search.tree import Node, Tree

EMPTY_TREE = json.dumps(Tree(()).to_json())


class TimedRoom(Room):
    """The actor's room for one search. `began` is the time when it admitted the first part of the search."""

    def __init__(self, room: CacheRoom) -> None:
        self._room, self.began = room, math.inf

    @asynccontextmanager
    async def enter(self, kind: Hashable, sequences: int, most: float) -> AsyncIterator[Hold]:
        async with self._room.enter(kind, sequences, most) as hold:
            self.began = min(self.began, time.perf_counter())
            yield hold


class SearchActor:
    """Holds the engines of policy and value, or the one engine that is both. They batch over all searches of the actor."""

    def __init__(self, recipe: Recipe, value_model: str, out: StageTable) -> None:
        self.out = out
        self.recipe, self.config = recipe, recipe.evaluate
        model = model_path(evaluated_policy(recipe))
        self.tokenizer = load_tokenizer(model)
        self.shapes: dict[str, Shape] = {"beam": self.config.beam}
        self.shapes |= {variant.name: variant.shape for variant in self.config.variants}
        self._stopped = {variant.name: variant for variant in self.config.variants if variant.confidence}
        engines = self.config.policy_engine, self.config.value_engine
        self._replica = Replica(out.writer, self.config.resources.num_gpus)
        one = recipe.uses_own_head("evaluate")
        with start_slot(self.config.resources), start_errors(model, value_model):
            self.policy, self.value = build_engines(model, value_model, *engines)
        self._replica.uses(self.policy, self.value)
        exit_if_stuck(self.policy, self.value)
        # Prompt and response must fit into the context of both engines.
        self.context = min(engine.max_model_len for engine in (engines[:1] if one else engines))
        self.judge = Judge(workers=1, timeout_s=recipe.judge.timeout_s, memory_gib=recipe.judge.memory_gib)
        self._judge_lock = asyncio.Lock()  # a judge grades one batch at a time
        self._room = CacheRoom(cache_tokens(self.policy, self.value), self.config.policy_engine.max_num_seqs)
        self._cache_block = cache_block(self.policy, self.value)

    async def __call__(self, block: pa.Table) -> pa.Table:
        counts = await BlockRunner(self.out, self._search_and_grade, self._failed, 0, self._replica).run(block)
        return pa.Table.from_pylist([counts])

    async def _search_and_grade(self, row: dict[str, Any]) -> dict[str, Any]:
        room = TimedRoom(self._room)
        try:
            tree = (await self._search(row["problem"], row["problem_id"], row["explorer"], room)).canonical()
        except ValueError as error:  # for example a prompt that is longer than the context
            return self._failed(row, str(error))
        seconds = time.perf_counter() - room.began
        leaves = json.dumps(await self._grade_leaves(tree, row["answer"]))
        result = {"tree": json.dumps(tree.to_json()), "leaves": leaves, "seconds": seconds, "error": None}
        return {**row, "gold": row["answer"], **result}

    def _failed(self, row: dict[str, Any], reason: str) -> dict[str, Any]:
        return {**row, "gold": row["answer"], "tree": EMPTY_TREE, "leaves": "[]", "seconds": 0.0, "error": reason}

    async def _search(self, problem: str, problem_id: str, explorer: str, room: Room) -> Tree:
        prompt = prompt_tokens(self.tokenizer, problem, self.recipe.instruction)
        seed = stable_seed(self.recipe.seed, problem_id, explorer)
        sampling = fit_to_context(self.config.sampling, len(prompt), self.context, "evaluate")
        if explorer == "sample":
            count = self.config.samples
            return await sample(self.policy, self.value, prompt, count=count, sampling=sampling, seed=seed, room=room)
        if explorer == "greedy":
            greedy = replace(sampling, temperature=0.0)
            return await sample(self.policy, self.value, prompt, count=1, sampling=greedy, seed=seed, room=room)
        shape = self.shapes[explorer]
        sampling = replace(sampling, stop_token_ids=delimiter_tokens(self.tokenizer, shape.delimiter))
        if isinstance(shape, Beam):
            return await beam(
                self.policy, self.value, prompt, beam=shape, sampling=sampling, seed=seed, room=room,
                stop=self._early_stop(explorer), cache_block=self._cache_block,
            )  # fmt: skip
        return await self._search_whole_tree(prompt, shape, sampling, seed, room)

    async def _search_whole_tree(
        self,
        prompt: Tokens,
        shape: Mcts | Rebase | ParticleFilter | DeepConf,
        sampling: Sampling,
        seed: int,
        room: Room,
    ) -> Tree:
        """A search whose blocks may extend any prefix of its tree, so that it needs all of them."""
        if isinstance(shape, Mcts):
            sequences, most = shape.width * shape.parallel, shape.width * shape.simulations * shape.block
        else:
            sequences, most = shape.width, shape.width * sampling.max_tokens
        engines = self.policy, self.value
        others: dict[str, Any] = {"sampling": sampling, "seed": seed}
        async with room.enter(shape, sequences, most) as hold:
            if isinstance(shape, Mcts):
                tree = await mcts(*engines, prompt, shape=shape, **others)
            elif isinstance(shape, Rebase):
                tree = await rebase(*engines, prompt, shape=shape, **others)
            elif isinstance(shape, ParticleFilter):
                tree = await particle_filter(*engines, prompt, shape=shape, **others)
            else:
                tree = await deepconf(self.policy, prompt, shape=shape, **others)
            hold.needs(tree.usage().generated, 0)
        return tree

    def _early_stop(self, explorer: str) -> EarlyStop | None:
        if variant := self._stopped.get(explorer):
            return EarlyStop(variant.confidence, self._answer, cache(self.judge.equal), variant.stop)
        return None

    def _answer(self, tree: Tree, leaf: Node) -> str | None:
        return extract_answer(response_text(self.tokenizer, tree.path(leaf.id)))

    async def _grade_leaves(self, tree: Tree, gold: str) -> list[dict[str, Any]]:
        texts = leaf_texts(self.tokenizer, tree)
        async with self._judge_lock:
            verdicts = await asyncio.to_thread(self.judge.grade_all, [(gold, text) for text in texts])
        return leaf_rows(tree, verdicts)
