"""Finished searches, as evaluation reads them: answers with their outcomes and values, and what each group cost.

In: rows of the table `searches`. Out: `Solved`; answers that vote together (`Pool`), what a vote is worth, what it cost. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from vgs_ray.search import select
from vgs_ray.search.flops import Cost, ModelSize, sum_costs, tree_costs
from vgs_ray.search.select import Equivalent
from vgs_ray.search.tree import Tree


class Leaf(NamedTuple):
    """One finished answer: `answer` is None when it gave none; `outcome` is what grading said of it, `tokens` its length."""

    group: int
    answer: str | None
    outcome: str
    value: float | None
    tokens: int = 0


@dataclass(frozen=True)
class Solved:
    """One problem searched by one explorer.

    Attributes:
        problem_id: names the problem.
        explorer: sample, beam, or the name of a variant.
        leaves: its answers, by group.
        prompt: cost of reading the prompt once, which is also in that of the group that came first.
        groups: what each group cost, as the engines counted.
        seconds: wall clock of the whole search, which shared its engines with other problems.
        failed: the search raised an error; it has no leaves and counts as wrong.
        unscored: blocks whose value was no number; they lose against all.
        benchmark: that the problem belongs to.
    """

    problem_id: str
    explorer: str
    leaves: tuple[Leaf, ...]
    prompt: Cost
    groups: Mapping[int, Cost]
    seconds: float
    failed: bool = False
    unscored: int = 0
    benchmark: str = ""

    @classmethod
    def from_row(cls, row: Mapping[str, Any], policy: ModelSize, value: ModelSize) -> Solved:
        """Read a row of the table `searches` (see `vgs_ray.data.schemas.SEARCHES`)."""
        name, explorer, benchmark = row["problem_id"], row["explorer"], row["benchmark"]
        if row.get("error"):
            return cls(name, explorer, (), Cost(), {}, row["seconds"], failed=True, benchmark=benchmark)
        tree = Tree.from_json(json.loads(row["tree"]))
        costs, unscored = tree_costs(tree, policy, value), sum(node.value is None for node in tree.nodes[1:])
        leaves = [
            Leaf(x["group"], x["answer"], x["outcome"], x["value"], tree.end(x["node"]))
            for x in json.loads(row["leaves"])
        ]
        leaves.sort(key=lambda leaf: leaf.group)
        return cls(
            name, explorer, tuple(leaves), costs.prompt, costs.groups, row["seconds"],
            unscored=unscored, benchmark=benchmark,
        )  # fmt: skip


class Pool(NamedTuple):
    """Answers that vote together, and their positions by class."""

    leaves: list[Leaf]
    classes: list[list[int]]


class Classed(NamedTuple):
    search: Solved
    classes: list[list[int]]


def classed(search: Solved, equivalent: Equivalent | None) -> Classed:
    return Classed(search, select.classes([leaf.answer for leaf in search.leaves], equivalent))


def pool(each: Classed, run: range) -> Pool:
    """The leaves of a run of groups, with the problem's classes cut down to them."""
    kept = [at for at, leaf in enumerate(each.search.leaves) if leaf.group in run]
    moved = {at: new for new, at in enumerate(kept)}
    cut = [[moved[at] for at in members if at in moved] for members in each.classes]
    return Pool([each.search.leaves[at] for at in kept], [members for members in cut if members])


def vote(method: select.Selector) -> Callable[[Pool], float]:
    def judge(pool: Pool) -> float:
        winners = select.tied(select.weigh(method, pool.classes, [leaf.value for leaf in pool.leaves]))
        return expected(pool, [winner.members[0] for winner in winners])

    return judge


def best(pool: Pool) -> float:
    alone = [[at] for members in pool.classes for at in members]
    winners = select.tied(select.weigh("best", alone, [leaf.value for leaf in pool.leaves]))
    return expected(pool, [winner.members[0] for winner in winners])


def expected(pool: Pool, winners: Sequence[int]) -> float:
    """Correctness when one of the tied winners is drawn; 0 when nobody answered."""
    return fmean(pool.leaves[at].outcome == "correct" for at in winners) if winners else 0.0


def any_correct(pool: Pool) -> float:
    return float(any(leaf.outcome == "correct" for leaf in pool.leaves))


def solved_count(search: Solved) -> int:
    return sum(leaf.outcome == "correct" for leaf in search.leaves)


def cost_of(search: Solved, runs: list[range], scored: bool) -> Cost:
    """The mean of the runs; without the value model's part where the method has no use for it.

    The groups have shared one reading of the prompt, which each run would have paid.
    """
    blocks = sum_costs([search.groups[group] for run in runs for group in run if group in search.groups])
    shared = 1 - 1 / len(runs)
    cost = Cost(*(part / len(runs) + shared * once for part, once in zip(blocks, search.prompt, strict=True)))
    return cost if scored else cost._replace(scored=0.0, value_flops=0.0)


def seconds_of(search: Solved, runs: list[range]) -> float:
    whole = sum(cost.generated for cost in search.groups.values())
    used = sum(search.groups[group].generated for run in runs for group in run if group in search.groups)
    return search.seconds * used / len(runs) / whole if whole else search.seconds
