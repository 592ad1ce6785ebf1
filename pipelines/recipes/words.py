"""The recipe of a real language model in which the search has something to find: word problems on a CPU."""

from __future__ import annotations

from dataclasses import replace

from pipelines.recipes.sandbox import sandbox
from vgs_ray.config import Beam, Engine, Generator, Recipe, ReferencePolicy, Resources, RollOut, Sampling

FOLDER = "./runs/words-data"
"""Folder that `vgs_ray.words.prepare` writes."""
POLICY = "./runs/words-policy"
"""Folder that `vgs_ray.words.train_policy` writes."""


def words() -> Recipe:
    """Word problems on a CPU: SmolLM2-135M-Instruct, fine-tuned on solutions in short steps (see docs/words.md)."""
    engine = Engine(
        max_model_len=512, max_num_seqs=96, kv_cache_gib=1.0, dtype="float32", enforce_eager=True, threads=1
    )
    one_replica = Resources(num_cpus=0.5, num_gpus=0.0)
    two_replicas = replace(one_replica, replicas=2)
    sampling = Sampling(temperature=0.7, top_p=1.0, max_tokens=128)
    base = sandbox()
    beam = Beam(keep=1, branch=2, block=32, groups=8, delimiter="\n")  # a step of the solution is a line
    return replace(
        base,
        name="words",
        policy=ReferencePolicy(POLICY),
        clean=replace(
            base.clean, source=f"{FOLDER}/problems.jsonl", exclude=(f"{FOLDER}/benchmark.jsonl",), limit=0, validation=120,
            contamination=0.0,
        ),
        roll_in=replace(
            base.roll_in, generators=(Generator("words", POLICY),), per_problem=3, sampling=sampling, engine=engine,
            resources=two_replicas,
        ),
        roll_out=RollOut(cuts=2, positions="uniform", sampling=sampling, engine=engine, resources=two_replicas),
        train=replace(
            base.train, init=POLICY, trained_layers=4, share_policy=True, batch_size=32, steps=200, lr=3e-4,
            min_warmup_steps=10, workers=2, cpus_per_worker=0.5, micro_tokens=2048, checkpoint_every=20,
            validate_every=50, position_bin=16,
        ),
        evaluate=replace(
            base.evaluate, benchmarks=(f"{FOLDER}/benchmark.jsonl",), limit=0, beam=beam,
            sampling=sampling, policy_engine=engine, value_engine=engine, resources=two_replicas,
        ),
        serve=replace(
            base.serve, beam=beam, policy_engine=engine, value_engine=engine, resources=one_replica,
            policy_resources=one_replica, value_resources=one_replica, model_name="vgs-words", sampling=sampling,
        ),
    )  # fmt: skip
