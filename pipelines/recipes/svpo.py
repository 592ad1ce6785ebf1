"""Recipes of step-level value preference optimization (SVPO, arXiv 2406.10858) and its baselines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pipelines.recipes.sandbox import sandbox
from vgs_ray.config import (
    SVPO_STAGES,
    Beam,
    Clean,
    Engine,
    Evaluate,
    Pairs,
    Recipe,
    ReferencePolicy,
    Resources,
    Sampling,
    Serve,
    Trees,
    Tune,
    Variant,
    alphamath,
)
from vgs_ray.prompts import R1_INSTRUCTION

STEP = ";"
"""Text that ends a step of a sandbox answer."""


def svpo() -> Recipe:
    """SVPO on the sandbox: trees, step preferences, and one model that is both policy and value."""
    base = sandbox()
    evaluate, one_replica = base.evaluate, base.roll_in.resources
    beam = Beam(keep=1, branch=2, block=64, groups=8, delimiter=STEP)
    return replace(
        base,
        name="svpo",
        stages=SVPO_STAGES,
        clean=replace(base.clean, limit=600, validation=50),
        trees=Trees(
            per_problem=1,
            search=alphamath(simulations=120, depth=12, block=64, delimiter=STEP, parallel=4),
            sampling=evaluate.sampling,
            policy_engine=evaluate.policy_engine,
            value_engine=evaluate.value_engine,
            resources=replace(one_replica, num_cpus=0.5, replicas=2),
        ),
        pairs=Pairs(min_margin=1.0),
        tune=Tune(
            beta=0.3, max_length=512, batch_size=64, paths=256, micro_batch=16, lr=3e-4, head_lr=1e-2, bf16=False, workers=2,
            cpus_per_worker=0.25, gpus_per_worker=0.0, shard_size=1, activations="keep",
        ),
        evaluate=replace(evaluate, limit=200, greedy=True, beam=beam),
        serve=replace(base.serve, beam=beam),
    )  # fmt: skip


def svpo_base() -> Recipe:
    """The untrained policy of `svpo` with a value head of its own, on the same trees."""
    return _baseline("svpo_base", svpo().pairs, loss="none")


def svpo_sft() -> Recipe:
    """SFT on the correct answers of the trees of `svpo`."""
    return _baseline("svpo_sft", Pairs(kind="solution"), loss="sft")


def svpo_dpo() -> Recipe:
    """DPO on pairs of whole answers from the trees of `svpo`."""
    return _baseline("svpo_dpo", Pairs(kind="solution"), loss="dpo")


def _baseline(name: str, pairs: Pairs, loss: Literal["dpo", "sft", "none"]) -> Recipe:
    base = svpo()
    return replace(
        base,
        name=name,
        base_run="svpo",
        base_stages=("clean", "trees"),
        pairs=pairs,
        tune=replace(base.tune, loss=loss),
    )


def svpo_math() -> Recipe:
    """SVPO at the published scale: MATH, ten trees of AlphaMath for each problem, a 7B policy (docs/svpo.md).

    The published policy is AlphaMath-7B, which writes Python code that a tool runs. This policy has the same base model, and it
    has a chat template and puts its answers in a box, as the stages expect. The learning rate, beta and schedule are those of
    DVO, which builds on the same code. The paper's problems include GSM8K; stage clean reads one source, so these are of MATH
    alone. Stage tune divides float32 weights, gradients and AdamW's state (16 bytes for each parameter, 110 GB here) and the
    reference in bfloat16 (14 GB) among the GPUs: 16 GB on each of 8, and the activations.
    """
    policy = "deepseek-ai/deepseek-math-7b-instruct"
    engine = Engine(max_model_len=2048)
    shared = replace(engine, gpu_memory_utilization=0.45)
    steps: dict[str, Any] = {"block": 512, "delimiter": "\n"}
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=1024)
    return Recipe(
        name="svpo_math",
        stages=SVPO_STAGES,
        instruction=R1_INSTRUCTION,
        policy=ReferencePolicy(policy),
        clean=Clean(
            source="DigitalLearningGmbH/MATH-lighteval:default/train", answer_column="", exclude=("math-500",),
        ),
        trees=Trees(
            per_problem=10, search=alphamath(**steps), sampling=sampling, policy_engine=shared, value_engine=shared,
            resources=Resources(replicas=8, num_cpus=2.0),
        ),
        tune=Tune(max_length=1792, batch_size=128, micro_batch=4, epochs=3, lr=5e-7, beta=0.1, workers=8),
        evaluate=Evaluate(
            benchmarks=("math-500", "gsm8k"),
            samples=16,
            budgets=(5, 15),
            greedy=True,
            beam=Beam(keep=1, branch=5, groups=3, **steps),
            variants=(
                Variant("step_beam", Beam(keep=3, branch=5, finished="compete", **steps)),
                Variant("mcts", mcts=alphamath(**steps)),
            ),
            sampling=sampling,
            policy_engine=engine,
            value_engine=engine,
            resources=Resources(replicas=8, num_cpus=2.0),
        ),
        serve=Serve(
            beam=Beam(keep=1, branch=5, groups=1, **steps), sampling=sampling, policy_engine=engine, value_engine=engine
        ),
    )  # fmt: skip
