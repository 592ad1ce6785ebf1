"""What ranks the blocks of a guided search: python bench/ranking.py runs/sandbox_shared [--problems 300].

Searches the benchmark problems of the sandbox with the models of a finished run, in one process and without Ray. Blocks are
ranked by value, by likelihood, or by both. The searches that rank by likelihood use no value model: their answers vote with equal
weights.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from tabulate import tabulate

from pipelines.recipes import sandbox, sandbox_shared
from vgs_ray.config import Beam, Sampling
from vgs_ray.data.ids import problem_id, stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines import build_engines
from vgs_ray.engines.facts import cache_block
from vgs_ray.engines.interface import Completion, Policy, Score, Usage, Value
from vgs_ray.evaluate.formats import accuracy_text
from vgs_ray.evaluate.graded_search import GradedLeaf, GradedSearch
from vgs_ray.evaluate.methods import evaluate_methods
from vgs_ray.evaluate.report import method_rows
from vgs_ray.grade import equivalent, extract_answer
from vgs_ray.models import OWN_HEAD, model_path
from vgs_ray.models.folder import VALUE_HEAD
from vgs_ray.prompts import load_tokenizer, prompt_tokens, response_text
from vgs_ray.sandbox.rows import benchmark_rows
from vgs_ray.search.explore import beam
from vgs_ray.search.flops import model_sizes, tree_costs
from vgs_ray.search.tree import Node, Tree

AT_ONCE = 48
"""Number of problems that are searched at the same time."""


class WithoutValues:
    """A policy whose blocks all have the value 1."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.usage = policy, Usage()

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        return (await self.policy.extend(prefix, sampling, seed))._replace(score=Score(1.0, (), 0))

    async def score(self, tokens: Tokens) -> Score:
        raise AssertionError("each block has a score already")

    async def score_each(self, tokens: Tokens) -> list[Score]:
        raise AssertionError("each block has a score already")


class Bench:
    """The engines and problems of a finished run, whose value model is separate or shares the policy's layers."""

    def __init__(self, run: Path, problems: int) -> None:
        written = run / "train" / "value_model"
        shared = (written / VALUE_HEAD).exists()
        self.config = (sandbox_shared() if shared else sandbox()).evaluate
        self.models = (str(written), OWN_HEAD) if shared else (model_path("sandbox:ref"), str(written))
        self.engines = build_engines(*self.models, self.config.policy_engine, self.config.value_engine)
        self.tokenizer, self.rows = load_tokenizer(self.models[0]), list(benchmark_rows(problems))
        self.sizes, self.same, self.block = model_sizes(*self.models), cache(equivalent), cache_block(*self.engines)

    async def search_all(self, shape: Beam, policy: Policy, value: Value) -> list[GradedSearch]:
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(row: dict[str, Any]) -> GradedSearch:
            async with turn:
                return await self.search(row, shape, policy, value)

        return await asyncio.gather(*map(one, self.rows))

    async def search(self, row: dict[str, Any], shape: Beam, policy: Policy, value: Value) -> GradedSearch:
        """Search one problem, with the seed that stage evaluate gives it."""
        name, recipe = problem_id(row["problem"]), sandbox()
        prompt = prompt_tokens(self.tokenizer, row["problem"], recipe.instruction)
        seed = stable_seed(recipe.seed, name, "beam")
        tree = await beam(
            policy, value, prompt, beam=shape, sampling=self.config.sampling, seed=seed, cache_block=self.block
        )
        costs = tree_costs(tree, *self.sizes)
        leaves = tuple(self.grade(row["answer"], tree, leaf) for leaf in tree.leaves())
        return GradedSearch(
            name, "beam", leaves, costs.prompt, costs.groups, 0.0, benchmark="sandbox", cached=costs.cached
        )

    def grade(self, gold: str, tree: Tree, leaf: Node) -> GradedLeaf:
        finished = leaf.state == "finished"
        answer = extract_answer(response_text(self.tokenizer, tree.path(leaf.id))) if finished else None
        right = answer is not None and equivalent(gold, answer) is True
        return GradedLeaf(leaf.group, answer, "correct" if right else "incorrect", leaf.value)

    def cells(self, shape: Beam, searches: Sequence[GradedSearch], budgets: Sequence[int]) -> list[str]:
        """Accuracy and FLOPs of the weighted vote at each budget."""
        config = replace(self.config, beam=shape, budgets=tuple(budgets), variants=())
        results = evaluate_methods(searches, config, self.same)
        rows = {row["budget"]: row for row in method_rows(results) if row["method"] == "vgs_weighted_majority"}
        return [f"{accuracy_text(rows[budget])}, {rows[budget]['flops']:.2e}" for budget in budgets]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run of sandbox or sandbox_shared")
    parser.add_argument("--problems", type=int, default=300)
    arguments = parser.parse_args()
    bench = Bench(arguments.run, arguments.problems)
    policy, value = bench.engines
    plain = WithoutValues(policy)
    weight = sandbox().evaluate.likelihood
    rankings: dict[str, tuple[float, Policy, Value]] = {
        "value": (0.0, policy, value),
        "likelihood": (weight, plain, plain),
        "both": (weight, policy, value),
    }
    for branch, groups, budgets in ((3, 4, (3, 6, 12)), (2, 8, (2, 4, 8, 16))):
        table = []
        for name, (likelihood, writer, scorer) in rankings.items():
            shape = replace(bench.config.beam, branch=branch, groups=groups, likelihood=likelihood)
            searches = asyncio.run(bench.search_all(shape, writer, scorer))
            table.append([name, *bench.cells(shape, searches, budgets)])
        heads = ["ranked by", *(f"budget {budget}" for budget in budgets)]
        print(f"\nbranch {branch}\n{tabulate(table, heads, 'github', disable_numparse=True)}", flush=True)
    bench.engines.close()


if __name__ == "__main__":
    main()
