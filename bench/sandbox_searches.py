"""Searches of the sandbox's benchmark problems in one process, for benchmarks of search methods."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, TypeVar

from pipelines.recipes import sandbox
from vgs_ray.config import Beam, Evaluate
from vgs_ray.data.ids import problem_id, stable_seed
from vgs_ray.engines import Engines, build_engines
from vgs_ray.engines.facts import cache_block
from vgs_ray.engines.interface import Policy, Value
from vgs_ray.grade import equivalent, extract_answer
from vgs_ray.prompts import load_tokenizer, prompt_tokens, response_text
from vgs_ray.sandbox.rows import benchmark_rows
from vgs_ray.search.early_stop import EarlyStop
from vgs_ray.search.explore import beam
from vgs_ray.search.flops import ModelSizes, model_sizes
from vgs_ray.search.tree import Node, Tree

RECIPE = sandbox()
T = TypeVar("T")


class SandboxSearches:
    """The engines and problems of the sandbox.

    Args:
        policy, value: of `build_engines`.
        config: their engines, and the sampling.
        problems: number of problems.
    """

    def __init__(self, policy: str, value: str, config: Evaluate, problems: int) -> None:
        self.config = config
        self.engines: Engines = build_engines(policy, value, config.policy_engine, config.value_engine)
        self.tokenizer, self.rows = load_tokenizer(policy), list(benchmark_rows(problems))
        self.sizes: ModelSizes = model_sizes(policy, value)
        self.same = cache(equivalent)

    async def of_all(self, search: Callable[[dict[str, Any]], Awaitable[T]], at_once: int) -> list[T]:
        """The results of a search of each problem, so many at the same time."""
        turn = asyncio.Semaphore(at_once)

        async def one(row: dict[str, Any]) -> T:
            async with turn:
                return await search(row)

        return await asyncio.gather(*map(one, self.rows))

    async def tree(
        self,
        row: dict[str, Any],
        shape: Beam,
        explorer: str = "beam",
        engines: tuple[Policy, Value] | None = None,
        stop: EarlyStop | None = None,
    ) -> Tree:
        """Search one problem, with the seed that stage evaluate gives it."""
        return await beam(
            *(engines or self.engines),
            prompt_tokens(self.tokenizer, row["problem"], RECIPE.instruction),
            beam=shape,
            sampling=self.config.sampling,
            seed=stable_seed(RECIPE.seed, problem_id(row["problem"]), explorer),
            cache_block=cache_block(*self.engines),
            stop=stop,
        )

    def answer(self, tree: Tree, leaf: Node) -> str | None:
        """The answer of a leaf; None if it is not finished or has none."""
        finished = leaf.state == "finished"
        return extract_answer(response_text(self.tokenizer, tree.path(leaf.id))) if finished else None
