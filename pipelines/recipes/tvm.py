"""Recipes of token-supervised value models (TVM, arXiv 2407.12863): on the sandbox with its baselines, and at published scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipelines.recipes.sandbox import sandbox
from pipelines.recipes.svpo import STEP
from vgs_ray.config import (
    Beam,
    Clean,
    Engine,
    Evaluate,
    Generator,
    Label,
    Mcts,
    Rebase,
    Recipe,
    ReferencePolicy,
    Resources,
    RollIn,
    RollOut,
    Sampling,
    Serve,
    Train,
    Variant,
)
from vgs_ray.prompts import R1_INSTRUCTION

SHARED_STAGES = ("clean", "roll_in", "roll_out", "verify")
"""Stages whose rows the baselines take from the run `tvm`."""


def tvm() -> Recipe:
    """TVM on the sandbox: 100 whole answers to each problem, and a value for each token by shared prefixes."""
    base = sandbox()
    steps: dict[str, Any] = {"block": 64, "delimiter": STEP}
    return replace(
        base,
        name="tvm",
        clean=replace(base.clean, limit=220, validation=20),
        roll_in=replace(
            base.roll_in,
            generators=(Generator("ref", base.policy.model),),
            per_problem=100,
            resources=base.roll_out.resources,
        ),
        roll_out=replace(base.roll_out, cuts=0, whole=True),
        label=Label(kind="token_values", hopeless_share=1.0),
        train=replace(base.train, loss="soft", steps=0, epochs=1, batch_size=32, lr=5e-4),
        evaluate=replace(
            base.evaluate,
            limit=150,
            beam=Beam(keep=1, branch=4, groups=4, **steps),
            variants=(
                Variant("step_beam", Beam(keep=4, branch=4, finished="compete", **steps)),
                Variant("rebase", rebase=Rebase(width=16, **steps)),
                Variant("mcts", mcts=Mcts(simulations=40, width=4, **steps)),
            ),
        ),
    )


def tvm_orm() -> Recipe:
    """An outcome reward model on the rows of `tvm`: the outcome of the path at every token."""
    return _baseline("tvm_orm", Label(kind="outcome_values", hopeless_share=1.0))


def tvm_prm() -> Recipe:
    """A process reward model as in Math-Shepherd on the rows of `tvm`: a value at the end of each step."""
    return _baseline("tvm_prm", Label(kind="step_values", hopeless_share=1.0, delimiter=STEP))


def tvm_vgs() -> Recipe:
    """The value model of VGS on the rows of `tvm`: three classes at every token."""
    base = _baseline("tvm_vgs", Label(hopeless_share=1.0))
    return replace(base, train=replace(base.train, loss="outcome"))


def _baseline(name: str, label: Label) -> Recipe:
    return replace(tvm(), name=name, label=label, base_run="tvm", base_stages=SHARED_STAGES)


def tvm_math() -> Recipe:
    """TVM at the published scale: MATH, 100 answers to each problem, a 7B generator, and a value model that starts from it.

    arXiv 2407.12863 has Mistral and Llama models tuned on MetaMath. This generator is of the same size, and it has a chat
    template and puts its answers in a box, as the stages expect.
    """
    generator = "deepseek-ai/deepseek-math-7b-instruct"
    engine = Engine(max_model_len=2048)
    engines: dict[str, Any] = {
        "policy_engine": replace(engine, gpu_memory_utilization=0.45),
        "value_engine": replace(engine, gpu_memory_utilization=0.4),
    }
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=1024)
    steps: dict[str, Any] = {"block": 256, "delimiter": "\n"}
    return Recipe(
        name="tvm_math",
        instruction=R1_INSTRUCTION,
        policy=ReferencePolicy(generator),
        clean=Clean(
            source="DigitalLearningGmbH/MATH-lighteval:default/train",
            answer_column="",
            exclude=("math-500",),
        ),
        roll_in=RollIn(
            generators=(Generator("generator", generator),),
            per_problem=100,
            sampling=sampling,
            engine=engine,
            resources=Resources(replicas=8),
        ),
        roll_out=RollOut(cuts=0, whole=True, sampling=sampling, engine=engine),
        label=Label(kind="token_values", hopeless_share=1.0),
        train=Train(
            init=generator, loss="soft", batch_size=512, steps=0, epochs=1, lr=2e-6, min_warmup_steps=0, dropout=0.0,
            weight_decay=0.0, clip_norm=1.0, workers=8, checkpoint_every=200, validate_every=200,
        ),
        evaluate=Evaluate(
            benchmarks=("math-500",),
            samples=64,
            budgets=(4, 16, 64),
            beam=Beam(keep=1, branch=4, groups=16, **steps),
            variants=(
                Variant("step_beam", Beam(keep=8, branch=8, finished="compete", **steps)),
                Variant("rebase", rebase=Rebase(width=64, **steps)),
                Variant("mcts", mcts=Mcts(simulations=64, width=4, **steps)),
            ),
            sampling=sampling,
            resources=Resources(replicas=8, num_cpus=2.0),
            **engines,
        ),
        serve=Serve(beam=Beam(keep=1, branch=4, groups=4, **steps), sampling=sampling, **engines),
    )  # fmt: skip
