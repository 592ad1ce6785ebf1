"""Reports of made-up searches, in folders of runs, for comparisons of runs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from vgs_ray.config import Beam, Evaluate
from vgs_ray.data.storage import AnyPath
from vgs_ray.evaluate.answer_statistics import answer_statistics
from vgs_ray.evaluate.graded_search import GradedLeaf, GradedSearch
from vgs_ray.evaluate.methods import evaluate_methods
from vgs_ray.evaluate.report import write_report
from vgs_ray.search.flops import Cost

SHAPE = Evaluate(samples=4, beam=Beam(keep=1, branch=2, groups=2), budgets=(2, 4), confidence=0.0)
COST = Cost(10, 10, 100, 50)


def write_run(
    root: AnyPath,
    name: str,
    skill: float,
    problems: dict[str, int] = {"sandbox": 60},  # noqa: B006
    searched: tuple[str, ...] = ("sample", "beam"),
    shape: Evaluate = SHAPE,
) -> AnyPath:
    """The report of searches whose answers are correct with probability `skill`, and whose values know that a little."""
    draw, searches = np.random.default_rng(len(name)), []
    for benchmark, count in problems.items():
        for problem in range(count):
            for explorer in searched:
                leaves = []
                for group in range(shape.samples if explorer == "sample" else shape.beam.groups):
                    correct = bool(draw.random() < skill)
                    value = float(np.clip(0.3 + 0.4 * correct + draw.normal(0, 0.1), 0, 1))
                    leaves.append(
                        GradedLeaf(group, "1" if correct else "2", "correct" if correct else "incorrect", value, 9)
                    )
                groups = {leaf.group: COST for leaf in leaves}
                searches.append(
                    GradedSearch(f"p{problem}", explorer, tuple(leaves), Cost(), groups, 1.0, benchmark=benchmark)
                )
    results = evaluate_methods(searches, shape, lambda a, b: a == b)
    write_report(root / name / "evaluate", results, answer_statistics(searches), resamples=50)
    return root / name


def write_manifest(run: AnyPath, stage: str, counts: dict[str, Any], **identity: Any) -> None:
    (run / stage).mkdir()
    manifest = {"stage": stage, "identity": identity, "operation": {}, "inputs": {}, "counts": counts}
    (run / stage / "_stage.json").write_text(json.dumps(manifest))
