"""Recipes of step-level value preference optimization (SVPO, arXiv 2406.10858) on the sandbox."""

from __future__ import annotations

from dataclasses import replace

from pipelines.recipes.sandbox import sandbox
from vgs_ray.config import SVPO_STAGES, Beam, Pairs, Recipe, Trees, Tune, alphamath

STEP = ";"
"""Text that ends a step of a sandbox answer."""


def svpo() -> Recipe:
    """SVPO on the sandbox: trees, step preferences, and one model that is both policy and value."""
    base = sandbox()
    evaluate, one_replica = base.evaluate, base.roll_in.resources
    return replace(
        base,
        name="svpo",
        stages=SVPO_STAGES,
        clean=replace(base.clean, limit=600, validation=50),
        trees=Trees(
            per_problem=1,
            search=alphamath(depth=12, block=64, delimiter=STEP, parallel=4),
            sampling=evaluate.sampling,
            policy_engine=evaluate.policy_engine,
            value_engine=evaluate.value_engine,
            resources=replace(one_replica, num_cpus=0.5, replicas=2),
        ),
        pairs=Pairs(min_margin=0.5),
        tune=Tune(
            max_length=512, batch_size=64, micro_batch=16, lr=1e-4, head_lr=1e-3, bf16=False, workers=2, cpus_per_worker=0.25,
            gpus_per_worker=0.0, activation_checkpointing=False,
        ),
        evaluate=replace(
            evaluate, limit=200, greedy=True, beam=Beam(keep=1, branch=2, block=64, groups=8, delimiter=STEP),
        ),
    )  # fmt: skip
