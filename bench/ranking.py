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
from functools import partial
from pathlib import Path
from typing import Any

from sandbox_searches import RECIPE, SandboxSearches
from tabulate import tabulate

from pipelines.recipes import sandbox_shared
from vgs_ray.config import Beam, Sampling
from vgs_ray.data.ids import problem_id
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Policy, Score, Usage, Value
from vgs_ray.evaluate.formats import accuracy_text
from vgs_ray.evaluate.graded_search import GradedLeaf, GradedSearch
from vgs_ray.evaluate.methods import evaluate_methods
from vgs_ray.evaluate.report import method_rows
from vgs_ray.grade import equivalent
from vgs_ray.models import OWN_HEAD, model_path
from vgs_ray.models.folder import VALUE_HEAD
from vgs_ray.search.flops import tree_costs
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


def open_run(run: Path, problems: int) -> SandboxSearches:
    """The models of a run, whose value model is separate or shares the policy's layers."""
    written = run / "train" / "value_model"
    if (written / VALUE_HEAD).exists():
        return SandboxSearches(str(written), OWN_HEAD, sandbox_shared().evaluate, problems)
    return SandboxSearches(model_path(RECIPE.policy.model), str(written), RECIPE.evaluate, problems)


async def search(
    searches: SandboxSearches, shape: Beam, engines: tuple[Policy, Value], row: dict[str, Any]
) -> GradedSearch:
    tree = await searches.tree(row, shape, engines=engines)
    costs = tree_costs(tree, *searches.sizes)
    leaves = tuple(grade(searches, row["answer"], tree, leaf) for leaf in tree.leaves())
    return GradedSearch(
        problem_id(row["problem"]),
        "beam",
        leaves,
        costs.prompt,
        costs.groups,
        0.0,
        benchmark="sandbox",
        cached=costs.cached,
    )


def grade(searches: SandboxSearches, gold: str, tree: Tree, leaf: Node) -> GradedLeaf:
    answer = searches.answer(tree, leaf)
    right = answer is not None and equivalent(gold, answer) is True
    return GradedLeaf(leaf.group, answer, "correct" if right else "incorrect", leaf.value)


def cells(searches: SandboxSearches, shape: Beam, found: Sequence[GradedSearch], budgets: Sequence[int]) -> list[str]:
    """Accuracy and FLOPs of the weighted vote at each budget."""
    config = replace(searches.config, beam=shape, budgets=tuple(budgets), variants=())
    results = evaluate_methods(found, config, searches.same)
    rows = {row["budget"]: row for row in method_rows(results) if row["method"] == "vgs_weighted_majority"}
    return [f"{accuracy_text(rows[budget])}, {rows[budget]['flops']:.2e}" for budget in budgets]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run of sandbox or sandbox_shared")
    parser.add_argument("--problems", type=int, default=300)
    arguments = parser.parse_args()
    searches = open_run(arguments.run, arguments.problems)
    plain, weight = WithoutValues(searches.engines.policy), RECIPE.evaluate.likelihood
    rankings: dict[str, tuple[float, tuple[Policy, Value]]] = {
        "value": (0.0, searches.engines),
        "likelihood": (weight, (plain, plain)),
        "both": (weight, searches.engines),
    }
    for branch, groups, budgets in ((3, 4, (3, 6, 12)), (2, 8, (2, 4, 8, 16))):
        table = []
        for name, (likelihood, engines) in rankings.items():
            shape = replace(searches.config.beam, branch=branch, groups=groups, likelihood=likelihood)
            found = asyncio.run(searches.of_all(partial(search, searches, shape, engines), AT_ONCE))
            table.append([name, *cells(searches, shape, found, budgets)])
        heads = ["ranked by", *(f"budget {budget}" for budget in budgets)]
        print(f"\nbranch {branch}\n{tabulate(table, heads, 'github', disable_numparse=True)}", flush=True)
    searches.engines.close()


if __name__ == "__main__":
    main()
