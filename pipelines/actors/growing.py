"""Growth of search trees in Ray actors, many at a time.

A request is a row of `TREE_REQUESTS`. An actor commits each row of `trees` when its tree is complete, and returns one row of
counts for each block. A tree that fails is a row with an error. An actor whose engine dies ends, and another one repeats its
open trees.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.actors.block_runner import BlockRunner
from pipelines.actors.engine_start import exit_if_stuck, start_errors, start_slot
from pipelines.actors.replica import Replica
from pipelines.actors.usage import UsageReporter
from pipelines.tables.stage_table import StageTable
from vgs_ray.answers.judge import Judge
from vgs_ray.config import Recipe, Trees
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines import build_engines, build_policy
from vgs_ray.engines.interface import Policy, Value
from vgs_ray.labels.tree_values import REWARDS, tree_values
from vgs_ray.models import OWN_HEAD, model_path
from vgs_ray.prompts import delimiter_tokens, load_tokenizer, prompt_tokens, solution_text
from vgs_ray.search.blocks import fit_to_context
from vgs_ray.search.mcts import mcts
from vgs_ray.search.tree import Node, Tree


class TreeActor:
    """Holds the policy, and a value model if there is one. Both batch over all trees of the actor."""

    def __init__(self, recipe: Recipe, value_model: str, out: StageTable) -> None:
        self.recipe, self.config, self.out = recipe, recipe.trees, out
        model = model_path(recipe.policy.model)
        self._replica = Replica(out.writer, self.config.resources.num_gpus)
        self.tokenizer = load_tokenizer(model)
        separate = value_model not in ("", OWN_HEAD)
        with start_slot(self.config.resources), start_errors(model, value_model):
            self.policy, self.value = _start_engines(model, value_model, self.config)
        exit_if_stuck(self.policy, self.value)
        engines = [self.config.policy_engine, *([self.config.value_engine] if separate else [])]
        self.context = min(engine.max_model_len for engine in engines)
        self.judge = Judge(workers=1, timeout_s=recipe.judge.timeout_s, memory_gib=recipe.judge.memory_gib)
        self._judge_lock = asyncio.Lock()  # a judge grades one batch at a time
        self._slots = asyncio.Semaphore(self.config.concurrent)
        self._usage = UsageReporter(self.policy)
        self._replica.uses(self.policy, self.value)

    async def __call__(self, block: pa.Table) -> pa.Table:
        began = time.time()
        counts = await BlockRunner(self.out, self._grow, self._failed, 0, self._replica).run(block)
        row = {**counts, **self._usage.report(), "began": began, "ended": time.time()}
        return pa.Table.from_pylist([row])

    async def _grow(self, request: dict[str, Any]) -> dict[str, Any]:
        async with self._slots:
            started = time.perf_counter()
            try:
                prompt = prompt_tokens(self.tokenizer, request["problem"], self.recipe.instruction)
                tree, outcomes = await self._search(prompt, request["answer"], request["seed"])
            except ValueError as error:  # for example a prompt that is longer than the context
                return self._failed(request, str(error))
        seconds = time.perf_counter() - started
        return {**request, "prompt": prompt, **tree_columns(tree, outcomes), "seconds": seconds, "error": None}

    def _failed(self, request: dict[str, Any], reason: str) -> dict[str, Any]:
        return {**request, "prompt": [], **tree_columns(Tree(()), {}), "seconds": 0.0, "error": reason}

    async def _search(self, prompt: Tokens, gold: str, seed: int) -> tuple[Tree, dict[Tokens, str]]:
        """The tree, and the outcome of each finished answer by its tokens."""
        outcomes: dict[Tokens, str] = {}

        async def reward(response: Tokens) -> float | None:
            if response not in outcomes:
                outcomes[response] = await self._outcome(prompt, response, gold)
            return REWARDS[outcomes[response]]

        shape = self.config.search
        sampling = fit_to_context(self.config.sampling, len(prompt), self.context, "trees")
        sampling = replace(sampling, stop_token_ids=delimiter_tokens(self.tokenizer, shape.delimiter))
        tree = await mcts(self.policy, self.value, prompt, shape=shape, sampling=sampling, seed=seed, reward=reward)
        return tree, outcomes

    async def _outcome(self, prompt: Tokens, response: Tokens, gold: str) -> str:
        text = solution_text(self.tokenizer, np.array(response, np.int32), prompt)
        async with self._judge_lock:
            (verdict,) = await asyncio.to_thread(self.judge.grade_all, [(gold, text)])
        return verdict.outcome


def _start_engines(model: str, value_model: str, config: Trees) -> tuple[Policy, Value | None]:
    if not value_model:
        return build_policy(model, config.policy_engine), None
    engines = build_engines(model, value_model, config.policy_engine, config.value_engine)
    return engines.policy, engines.value


def tree_columns(tree: Tree, outcomes: dict[Tokens, str]) -> dict[str, list[Any]]:
    """The columns of `trees` with one element for each node below the root.

    Args:
        tree: of a search with rewards.
        outcomes: of finished answers by their tokens.
    """

    def outcome(node: Node) -> str | None:
        if node.state == "finished":
            return outcomes[tree.path(node.id)]
        return "incomplete" if node.state == "length" else None

    nodes = tree.nodes[1:]
    columns: dict[str, list[Any]] = {
        "parents": [node.parent or 0 for node in nodes],
        "tokens": [list(node.tokens) for node in nodes],
        "states": [node.state for node in nodes],
        "logprobs": [node.logprob for node in nodes],
        "values": [node.value for node in nodes],
        "outcomes": [outcome(node) for node in nodes],
    }
    q, visits = tree_values(columns["parents"], columns["values"], columns["outcomes"])
    return {**columns, "q": q[1:], "visits": visits[1:]}
