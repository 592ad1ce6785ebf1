"""Searches with graded answers, made up by hand."""

from __future__ import annotations

from typing import Any

from vgs_ray.config import Beam, Evaluate
from vgs_ray.evaluate.graded_search import GradedLeaf, GradedSearch
from vgs_ray.search.flops import Cost, ModelSizes
from vgs_ray.search.model_size import ModelSize

SIZES = ModelSizes(ModelSize(1000, 2, 16), ModelSize(1000, 2, 16))
SHAPE = Evaluate(samples=4, beam=Beam(keep=1, branch=2, block=6, groups=2), budgets=(2, 4), confidence=0.0)


def same(a: str, b: str) -> bool:
    return a == b


def graded_search(leaves: list[GradedLeaf], explorer: Any = "sample", name: str = "p") -> GradedSearch:
    groups = {leaf.group: Cost(10, 10, 100, 50) for leaf in leaves}
    return GradedSearch(name, explorer, tuple(leaves), Cost(0, 3, 30, 15), groups, seconds=8.0)


def leaf(group: int, answer: str | None, value: float | None, gold: str = "1") -> GradedLeaf:
    return GradedLeaf(
        group, answer, "incomplete" if answer is None else "correct" if answer == gold else "incorrect", value
    )
