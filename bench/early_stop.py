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
from functools import partial
from typing import Any, NamedTuple

from sandbox_searches import RECIPE, SandboxSearches
from tabulate import tabulate

from vgs_ray.config import Beam
from vgs_ray.evaluate.statistics import difference
from vgs_ray.grade import equivalent
from vgs_ray.models import model_path
from vgs_ray.search import select
from vgs_ray.search.early_stop import EarlyStop
from vgs_ray.search.flops import Cost, mean_cost, sum_costs, tree_costs

AT_ONCE = 24
"""Number of problems that are searched at the same time."""


class Result(NamedTuple):
    """Of one problem."""

    correct: float
    cost: Cost
    stopped: bool


async def search_all(searches: SandboxSearches, shape: Beam, confidence: float) -> list[Result]:
    """Search all problems, with empty caches at first."""
    for engine in searches.engines:
        engine.loop.engine.reset_prefix_cache()
    return await searches.of_all(partial(search, searches, shape, confidence), AT_ONCE)


async def search(searches: SandboxSearches, shape: Beam, confidence: float, row: dict[str, Any]) -> Result:
    stop = EarlyStop(confidence, searches.answer, searches.same) if confidence else None
    tree = await searches.tree(row, shape, "beam" if shape.branch > 1 else "sample", stop=stop)
    leaves = tree.leaves()
    answers = [searches.answer(tree, leaf) for leaf in leaves]
    chosen = select.weighted_majority(answers, [leaf.value for leaf in leaves], equivalent=searches.same)
    correct = chosen is not None and equivalent(row["answer"], chosen) is True
    cost = sum_costs(list(tree_costs(tree, *searches.sizes).groups.values()))
    return Result(float(correct), cost, stop is not None and stop.groups is not None)


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
    models = model_path(RECIPE.policy.model), f"{arguments.run}/train/value_model"
    searches, guided = SandboxSearches(*models, RECIPE.evaluate, arguments.problems), RECIPE.evaluate.beam
    whole = RECIPE.evaluate.sampling.max_tokens
    shapes = {
        "guided": guided,
        "guided, aligned": replace(guided, align=True),
        "samples": Beam(keep=1, branch=1, block=whole, groups=RECIPE.evaluate.samples),
    }
    heads = ["search", "confidence", "accuracy %", "points", "stopped", "generated", "forwarded", "FLOPs", "saved"]
    table = []
    for name, shape in shapes.items():
        everything = asyncio.run(search_all(searches, shape, 0.0))
        table.append([name, "", *cells(everything, everything)])
        for confidence in arguments.confidences:
            table.append([name, confidence, *cells(asyncio.run(search_all(searches, shape, confidence)), everything)])
            print(tabulate(table, heads, "github", disable_numparse=True), flush=True)
    searches.engines.close()


if __name__ == "__main__":
    main()
