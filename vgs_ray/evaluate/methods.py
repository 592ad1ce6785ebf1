"""Methods at every budget, by regrouping what was searched once at the largest budget.

In: one `Solved` for each problem and explorer. Out: one `Measured` for each method and budget, with the expected
correctness of every problem. A budget B takes B / width groups, where a group of `sample` is one answer (width 1) and a
group of `beam` is one search of `keep * branch` blocks a round; the mean goes over disjoint runs of groups in order, so
every group counts once. Answers of a problem are compared once, and all selectors and budgets share the classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import NamedTuple

from vgs_ray.config import Evaluate
from vgs_ray.evaluate.solved import (
    Classed,
    Pool,
    Solved,
    any_correct,
    best,
    classed,
    cost_of,
    pool,
    seconds_of,
    solved_count,
    vote,
)
from vgs_ray.evaluate.statistics import pass_at_k
from vgs_ray.search import select
from vgs_ray.search.adaptive import allocate_groups
from vgs_ray.search.flops import Cost, sum_costs
from vgs_ray.search.select import Equivalent

COMPARED = [("vgs_weighted_majority", other) for other in ("majority", "weighted_majority", "best_of_n")]
"""Pairs of methods whose difference is reported at each budget."""


@dataclass(frozen=True)
class Measured:
    """One method at one budget.

    Attributes:
        benchmark: that the problems belong to.
        method: its name in the report.
        budget: generations side by side.
        problem_ids: the problems, sorted.
        correct: (problems,) expected correctness in [0, 1], in the order of `problem_ids`.
        samples: generations of each problem that the estimate rests on; a multiple of the budget.
        cost: tokens and FLOPs of one problem at this budget, mean.
        seconds: the same share of the search's wall clock as of its generated tokens, mean.
    """

    benchmark: str
    method: str
    budget: int
    problem_ids: tuple[str, ...]
    correct: tuple[float, ...]
    samples: int
    cost: Cost
    seconds: float


class _Method(NamedTuple):
    name: str
    judge: Callable[[Pool], float]
    scored: bool  # the method needs the value model


def measure(solved: Iterable[Solved], evaluate: Evaluate, equivalent: Equivalent | None = None) -> list[Measured]:
    """Every method at every budget that the searches allow, one benchmark after the other.

    Args:
        solved: searches in any order; an explorer may be absent.
        evaluate: names the samples, the beam and the budgets; a budget that is no multiple of a group's width, or
            needs more groups than there are, is left out for that explorer.
        equivalent: whether two answers are the same; `vgs_ray.grade.equivalent` by default, which has no time limit.

    Raises:
        ValueError: a problem that an explorer solved twice, or two explorers that solved different problems.
    """
    benchmarks: dict[str, list[Solved]] = {}
    for search in solved:
        benchmarks.setdefault(search.benchmark, []).append(search)
    return [each for searches in benchmarks.values() for each in _one_benchmark(searches, evaluate, equivalent)]


def _one_benchmark(searches: list[Solved], evaluate: Evaluate, equivalent: Equivalent | None) -> list[Measured]:
    by_explorer: dict[str, dict[str, Solved]] = {}
    for search in searches:
        problems = by_explorer.setdefault(search.explorer, {})
        if search.problem_id in problems:
            raise ValueError(f"problem {search.problem_id} has two {search.explorer} searches: keep one of them")
        problems[search.problem_id] = search
    if len({frozenset(problems) for problems in by_explorer.values()}) > 1:
        counts = {explorer: len(problems) for explorer, problems in by_explorer.items()}
        raise ValueError(f"the explorers solved different problems ({counts}): run the missing searches first")
    found: list[Measured] = []
    for shape in _shapes(evaluate):
        problems = by_explorer.get(shape.explorer, {})
        ready = [classed(problems[name], equivalent) for name in sorted(problems)]
        for budget in shape.budgets:
            if ready and budget % shape.width == 0 and budget // shape.width <= shape.groups:
                found += _at_budget(shape, ready, budget)
                if evaluate.confidence and shape.width < budget < shape.width * shape.groups:
                    found += _adaptive(shape, ready, budget, evaluate.confidence)
    return found


class _Shape(NamedTuple):
    """How an explorer's groups make a budget.

    Attributes:
        explorer: as in `Solved`.
        prefix: begins the names of its methods; empty for samples.
        width: generations side by side of one group.
        answers: that one group has at most.
        groups: how many there are.
        budgets: to report.
    """

    explorer: str
    prefix: str
    width: int
    answers: int
    groups: int
    budgets: list[int]


def _shapes(evaluate: Evaluate) -> list[_Shape]:
    budgets = sorted(set(evaluate.budgets))
    shapes = [_Shape("sample", "", 1, 1, evaluate.samples, sorted({1, *budgets}))]
    for name, prefix, beam in [("beam", "vgs", evaluate.beam), *((v.name, v.name, v.beam) for v in evaluate.variants)]:
        if beam:
            shapes.append(_Shape(name, f"{prefix}_", beam.keep * beam.branch, beam.keep, beam.groups, budgets))
    for variant in evaluate.variants:
        if not variant.beam:  # one tree, of this many blocks at most (MCTS) or side by side (REBASE)
            tree, wide = variant.mcts, variant.rebase
            blocks = tree.simulations * tree.width if tree else wide.width if wide else 0
            shapes.append(_Shape(variant.name, f"{variant.name}_", blocks, blocks, 1, [blocks]))
    return shapes


def _at_budget(shape: _Shape, ready: list[Classed], budget: int) -> list[Measured]:
    size, groups = budget // shape.width, shape.groups
    runs = [range(start, start + size) for start in range(0, groups - size + 1, size)]
    measured = []
    for method in _methods(shape.prefix, budget):
        if method.name == "pass":  # all samples are exchangeable, so the closed form uses every subset of them
            correct = [pass_at_k(groups, solved_count(search), budget) for search, _ in ready]
        else:
            correct = [fmean(method.judge(pool(each, run)) for run in runs) for each in ready]
        measured.append(_mean(method, budget, ready, correct, [runs] * len(ready), len(runs) * budget))
    return measured


def _adaptive(shape: _Shape, ready: list[Classed], budget: int, confidence: float) -> list[Measured]:
    """The votes again, with the same groups in all dealt to the problems whose vote is not decided."""
    measured = []
    votes: tuple[tuple[select.Selector, bool], ...] = (("weighted_majority", True), ("majority", False))
    for name, scored in votes:
        weights = partial(_weights, ready, name)
        used = allocate_groups(len(ready), budget // shape.width, shape.groups, shape.answers, weights, confidence)
        method = _Method(f"{shape.prefix}adaptive_{name}", vote(name), scored or bool(shape.prefix))
        correct = [method.judge(pool(each, range(count))) for each, count in zip(ready, used, strict=True)]
        runs = [[range(count)] for count in used]
        measured.append(_mean(method, budget, ready, correct, runs, round(fmean(used) * shape.width)))
    return measured


def _weights(ready: list[Classed], method: select.Selector, problem: int, groups: int) -> list[float]:
    found = pool(ready[problem], range(groups))
    return [each.weight for each in select.weigh(method, found.classes, [leaf.value for leaf in found.leaves])]


def _mean(
    method: _Method, budget: int, ready: list[Classed], correct: list[float], runs: Sequence[list[range]], samples: int
) -> Measured:
    """One method over all problems; `runs` are each problem's groups."""
    costs = [cost_of(each.search, its, method.scored) for each, its in zip(ready, runs, strict=True)]
    shares = [seconds_of(each.search, its) for each, its in zip(ready, runs, strict=True)]
    mean = Cost(*(x / len(ready) for x in sum_costs(costs)))
    ids = tuple(each.search.problem_id for each in ready)
    benchmark = ready[0].search.benchmark
    return Measured(benchmark, method.name, budget, ids, tuple(correct), samples, mean, fmean(shares))


def _methods(prefix: str, budget: int) -> list[_Method]:
    if prefix:
        return [
            _Method(f"{prefix}weighted_majority", vote("weighted_majority"), True),
            _Method(f"{prefix}best", best, True),
            _Method(f"{prefix}majority", vote("majority"), True),
            _Method(f"{prefix}pass", any_correct, True),
        ]
    if budget == 1:
        return [_Method("single", any_correct, False)]
    return [
        _Method("best_of_n", best, True),
        _Method("majority", vote("majority"), False),
        _Method("weighted_majority", vote("weighted_majority"), True),
        _Method("pass", any_correct, False),
    ]
