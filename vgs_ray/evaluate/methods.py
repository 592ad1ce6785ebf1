"""Accuracy and cost of every method at every budget, from one search of each problem at the largest budget.

In: one `GradedSearch` for each problem and explorer. Out: one `MethodResult` for each method and budget.

A method is an explorer and a selector. A budget B is a run of B / width groups. A group of `sample` or `greedy` is one answer
(width 1); a group of `beam` samples `keep * branch` blocks a round. The searched groups are cut into disjoint runs in order, and
the result is the mean over the runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import NamedTuple

from vgs_ray.config import Beam, DeepConf, Evaluate, Mcts
from vgs_ray.evaluate.graded_search import GradedSearch
from vgs_ray.evaluate.statistics import pass_at_k
from vgs_ray.evaluate.votes import Accuracy, AnswerPool, any_correct, likely_accuracy, selector_accuracy, walk_accuracy
from vgs_ray.search.adaptive import allocate_groups
from vgs_ray.search.flops import Cost, mean_cost
from vgs_ray.search.select import Equivalent, Selector

COMPARED_METHODS = [("vgs_weighted_majority", other) for other in ("majority", "weighted_majority", "best_of_n")]
"""Pairs of methods whose difference is reported at each budget."""


@dataclass(frozen=True)
class MethodResult:
    """One method at one budget.

    Attributes:
        benchmark: of the problems.
        method: its name in the report.
        budget: number of generations in parallel.
        problem_ids: of the problems, sorted.
        correct: (problems,) expected correctness in [0, 1], in the order of `problem_ids`.
        samples: generations of each problem behind the estimate; a multiple of the budget.
        cost: mean tokens and FLOPs of one problem.
        seconds: mean wall-clock time of one problem: the search's time in proportion to the generated tokens used.
    """

    benchmark: str
    method: str
    budget: int
    problem_ids: tuple[str, ...]
    correct: tuple[float, ...]
    samples: int
    cost: Cost
    seconds: float


def evaluate_methods(
    searches: Iterable[GradedSearch], config: Evaluate, equivalent: Equivalent | None = None
) -> list[MethodResult]:
    """Evaluate every method at every budget that the searches allow, one benchmark after the other.

    Args:
        searches: in any order; an explorer may be absent.
        config: the samples, shapes and budgets. For each explorer, budgets are left out that are not a multiple of a group's
            width or that need more groups than were searched. A variant also has its whole budget.
        equivalent: whether two answers are equal; `vgs_ray.grade.equivalent` by default, which has no time limit.

    Raises:
        ValueError: an explorer searched a problem twice, or the explorers searched different problems.
    """
    benchmarks: dict[str, list[GradedSearch]] = {}
    for search in searches:
        benchmarks.setdefault(search.benchmark, []).append(search)
    return [result for searches in benchmarks.values() for result in _evaluate_benchmark(searches, config, equivalent)]


class _Problem(NamedTuple):
    search: GradedSearch
    pool: AnswerPool


def _evaluate_benchmark(
    searches: list[GradedSearch], config: Evaluate, equivalent: Equivalent | None
) -> list[MethodResult]:
    by_explorer = _by_explorer(searches)
    results: list[MethodResult] = []
    for shape in _shapes(config):
        by_id = by_explorer.get(shape.explorer, {})
        problems = [_Problem(by_id[name], AnswerPool.of_search(by_id[name], equivalent)) for name in sorted(by_id)]
        for budget in shape.budgets:
            if problems and budget % shape.width == 0 and budget // shape.width <= shape.groups:
                results += _fixed_budget(shape, problems, budget, config.likelihood)
                if config.confidence and shape.width < budget < shape.width * shape.groups:
                    results += _adaptive_budget(shape, problems, budget, config.confidence)
    return results


def _by_explorer(searches: list[GradedSearch]) -> dict[str, dict[str, GradedSearch]]:
    """Searches of each explorer by problem id."""
    by_explorer: dict[str, dict[str, GradedSearch]] = {}
    for search in searches:
        by_id = by_explorer.setdefault(search.explorer, {})
        if search.problem_id in by_id:
            raise ValueError(f"problem {search.problem_id} has two {search.explorer} searches: keep one of them")
        by_id[search.problem_id] = search
    if len({frozenset(by_id) for by_id in by_explorer.values()}) > 1:
        counts = {explorer: len(by_id) for explorer, by_id in by_explorer.items()}
        raise ValueError(f"the explorers searched different problems ({counts}): run the missing searches first")
    return by_explorer


class _Shape(NamedTuple):
    """How an explorer's groups make up a budget.

    Attributes:
        explorer: as in `GradedSearch`.
        prefix: of the names of its methods; empty for `sample` and `greedy`.
        width: parallel generations of one group.
        answers: of one group, at most.
        groups: number of searched groups.
        budgets: to report.
        walk: whether the walk along the highest Q gives an answer.
        scored: whether the value model scores blocks.
    """

    explorer: str
    prefix: str
    width: int
    answers: int
    groups: int
    budgets: list[int]
    walk: bool = False
    scored: bool = True


def _shapes(config: Evaluate) -> list[_Shape]:
    budgets = sorted(set(config.budgets))
    shapes = [_Shape("sample", "", 1, 1, config.samples, sorted({1, *budgets}))]
    for variant in [None, *config.variants]:
        name, prefix, beam = (variant.name, variant.name, variant.beam) if variant else ("beam", "vgs", config.beam)
        if beam:
            # Some groups of an early stop are missing, so it says nothing about smaller budgets.
            smaller = [] if variant and variant.confidence else budgets
            reported = sorted({*smaller, beam.budget}) if variant else budgets
            shapes.append(_Shape(name, f"{prefix}_", beam.width, beam.keep, beam.groups, reported))
    if config.greedy:
        shapes.append(_Shape("greedy", "", 1, 1, 1, [1]))
    for variant in config.variants:
        shape = variant.shape
        if not isinstance(shape, Beam):  # one tree with at most this many blocks in all (MCTS) or in a round
            mcts, scored = isinstance(shape, Mcts), not isinstance(shape, DeepConf)
            blocks = shape.simulations * shape.width if isinstance(shape, Mcts) else shape.width
            shapes.append(_Shape(variant.name, f"{variant.name}_", blocks, blocks, 1, [blocks], mcts, scored))
    return shapes


class _Method(NamedTuple):
    name: str
    accuracy: Accuracy
    scored: bool  # the method needs the value model


def _methods(shape: _Shape, budget: int, likelihood: float) -> list[_Method]:
    prefix, scored = shape.prefix, shape.scored
    if budget == 1 and not prefix:
        return [_Method("greedy" if shape.explorer == "greedy" else "single", any_correct, False)]
    weighted = _Method(f"{prefix}weighted_majority", selector_accuracy("weighted_majority"), scored)
    best = _Method(f"{prefix}best" if prefix else "best_of_n", selector_accuracy("best"), scored)
    # Without a search, a vote that ignores the values needs no value model.
    majority = _Method(f"{prefix}majority", selector_accuracy("majority"), scored and bool(prefix))
    upper_bound = _Method(f"{prefix}pass", any_correct, scored and bool(prefix))
    likely = [_Method(f"{best.name}_likely", likely_accuracy(likelihood), scored)] if likelihood else []
    if not prefix:
        return [best, *likely, majority, weighted, upper_bound]
    walk = [_Method(f"{prefix}walk", walk_accuracy, True)] if shape.walk else []
    return [weighted, best, *likely, *walk, majority, upper_bound]


def _fixed_budget(shape: _Shape, problems: list[_Problem], budget: int, likelihood: float) -> list[MethodResult]:
    """Every method with the same number of groups for each problem."""
    size, groups = budget // shape.width, shape.groups
    runs = [range(start, start + size) for start in range(0, groups - size + 1, size)]
    results = []
    for method in _methods(shape, budget, likelihood):
        if method.name == "pass":  # samples are exchangeable, so the closed form uses every subset of them
            correct = [pass_at_k(groups, problem.search.correct, budget) for problem in problems]
        else:
            correct = [fmean(method.accuracy(problem.pool.of_groups(run)) for run in runs) for problem in problems]
        results.append(_result(method, budget, problems, correct, [runs] * len(problems), len(runs) * budget))
    return results


def _adaptive_budget(shape: _Shape, problems: list[_Problem], budget: int, confidence: float) -> list[MethodResult]:
    """The votes with the same total number of groups, allocated to the problems whose vote is undecided."""
    results = []
    selectors: tuple[tuple[Selector, bool], ...] = (("weighted_majority", True), ("majority", False))
    for selector, scored in selectors:
        groups = allocate_groups(
            len(problems),
            budget // shape.width,
            shape.groups,
            shape.answers,
            partial(_weights, problems, selector),
            confidence,
        )
        method = _Method(
            f"{shape.prefix}adaptive_{selector}", selector_accuracy(selector), scored or bool(shape.prefix)
        )
        runs = [range(count) for count in groups]
        correct = [method.accuracy(problem.pool.of_groups(run)) for problem, run in zip(problems, runs, strict=True)]
        samples = round(fmean(groups) * shape.width)
        results.append(_result(method, budget, problems, correct, [[run] for run in runs], samples))
    return results


def _weights(problems: list[_Problem], selector: Selector, problem: int, groups: int) -> list[float]:
    return [each.weight for each in problems[problem].pool.of_groups(range(groups)).weigh(selector)]


def _result(
    method: _Method,
    budget: int,
    problems: list[_Problem],
    correct: list[float],
    runs: Sequence[list[range]],
    samples: int,
) -> MethodResult:
    """The result of one method over all problems; `runs` holds each problem's runs of groups."""
    searches = [problem.search for problem in problems]
    cost = mean_cost([search.mean_cost(its, method.scored) for search, its in zip(searches, runs, strict=True)])
    seconds = fmean(search.mean_seconds(its) for search, its in zip(searches, runs, strict=True))
    ids = tuple(search.problem_id for search in searches)
    return MethodResult(searches[0].benchmark, method.name, budget, ids, tuple(correct), samples, cost, seconds)
