"""Aligned blocks and the early stop on the sandbox: python bench/early_stop.py runs/sandbox [--problems 300].

Searches the benchmark problems with the models of a finished run, in one process and without Ray. Prints accuracy and cost of the
recipe's guided search and of independent samples, whose answers are chosen by weighted majority. A row with a confidence is
compared, problem by problem, with the row above it without one.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from tabulate import tabulate

from pipelines.recipes import sandbox
from vgs_ray.config import Beam
from vgs_ray.data.ids import problem_id, stable_seed
from vgs_ray.engines import Engines, build_engines
from vgs_ray.engines.facts import cache_block
from vgs_ray.evaluate.statistics import difference
from vgs_ray.grade import equivalent, extract_answer
from vgs_ray.models import model_path
from vgs_ray.prompts import load_tokenizer, prompt_tokens, response_text
from vgs_ray.sandbox.rows import benchmark_rows
from vgs_ray.search import select
from vgs_ray.search.early_stop import EarlyStop
from vgs_ray.search.explore import beam
from vgs_ray.search.flops import Cost, ModelSizes, mean_cost, model_sizes, sum_costs, tree_costs
from vgs_ray.search.tree import Node, Tree

RECIPE = sandbox()
AT_ONCE = 24
"""Number of problems that are searched at the same time."""


class Result(NamedTuple):
    """Of one problem."""

    correct: float
    cost: Cost
    stopped: bool


class Bench:
    """The engines and problems of the sandbox.

    Args:
        run: folder of a finished run.
        problems: number of problems.
    """

    def __init__(self, run: str, problems: int) -> None:
        policy, value = model_path(RECIPE.policy.model), f"{run}/train/value_model"
        config = RECIPE.evaluate
        self.engines: Engines = build_engines(policy, value, config.policy_engine, config.value_engine)
        self.tokenizer, self.rows = load_tokenizer(policy), list(benchmark_rows(problems))
        self.sizes: ModelSizes = model_sizes(policy, value)
        self.same = cache(equivalent)

    async def search_all(self, shape: Beam, confidence: float) -> list[Result]:
        """Search all problems."""
        for engine in self.engines:
            engine.loop.engine.reset_prefix_cache()
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(row: dict[str, Any]) -> Result:
            async with turn:
                return await self.search(row, shape, confidence)

        return await asyncio.gather(*(one(row) for row in self.rows))

    async def search(self, row: dict[str, Any], shape: Beam, confidence: float) -> Result:
        """Search one problem, with the seed that stage evaluate gives it."""
        stop = EarlyStop(confidence, self.answer, self.same) if confidence else None
        explorer = "beam" if shape.branch > 1 else "sample"
        tree = await beam(
            *self.engines,
            prompt_tokens(self.tokenizer, row["problem"], RECIPE.instruction),
            beam=shape,
            sampling=RECIPE.evaluate.sampling,
            seed=stable_seed(RECIPE.seed, problem_id(row["problem"]), explorer),
            cache_block=cache_block(*self.engines),
            stop=stop,
        )
        leaves = tree.leaves()
        answers = [self.answer(tree, leaf) if leaf.state == "finished" else None for leaf in leaves]
        chosen = select.weighted_majority(answers, [leaf.value for leaf in leaves], equivalent=self.same)
        correct = chosen is not None and equivalent(row["answer"], chosen) is True
        cost = sum_costs(list(tree_costs(tree, *self.sizes).groups.values()))
        return Result(float(correct), cost, stop is not None and stop.groups is not None)

    def answer(self, tree: Tree, leaf: Node) -> str | None:
        """The answer of a finished leaf."""
        return extract_answer(response_text(self.tokenizer, tree.path(leaf.id)))


def cells(results: Sequence[Result], whole: Sequence[Result]) -> list[str]:
    """Columns of the table, from the accuracy on."""
    cost, before = (mean_cost([each.cost for each in some]) for some in (results, whole))
    mean, low, high = (100 * part for part in difference([r.correct for r in results], [r.correct for r in whole]))
    return [
        f"{100 * sum(each.correct for each in results) / len(results):.1f}",
        "" if results is whole else f"{mean:+.1f} ({low:+.1f} to {high:+.1f})",
        f"{sum(each.stopped for each in results)}",
        f"{cost.generated:,.0f}",
        f"{1 + cost.prefilled / cost.generated:.2f} + {cost.scored / cost.generated:.2f}",
        f"{cost.flops:.2e}",
        "" if results is whole else f"{100 * (1 - cost.generated / before.generated):.0f}%",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="folder of a finished run of the sandbox")
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--confidences", type=float, nargs="*", default=[0.8, 0.95])
    arguments = parser.parse_args()
    bench, guided = Bench(arguments.run, arguments.problems), RECIPE.evaluate.beam
    whole = RECIPE.evaluate.sampling.max_tokens
    shapes = {
        "guided": guided,
        "guided, aligned": replace(guided, align=True),
        "samples": Beam(keep=1, branch=1, block=whole, groups=RECIPE.evaluate.samples),
    }
    heads = ["search", "confidence", "accuracy %", "points", "stopped", "generated", "forwarded", "FLOPs", "saved"]
    table = []
    for name, shape in shapes.items():
        everything = asyncio.run(bench.search_all(shape, 0.0))
        table.append([name, "", *cells(everything, everything)])
        for confidence in arguments.confidences:
            table.append([name, confidence, *cells(asyncio.run(bench.search_all(shape, confidence)), everything)])
            print(tabulate(table, heads, "github", disable_numparse=True), flush=True)
    bench.engines.close()


if __name__ == "__main__":
    main()
