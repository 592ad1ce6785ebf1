"""The recipe of the published VGS run, for the node groups of cluster.yaml, and a trial of it on one machine."""

from __future__ import annotations

from dataclasses import replace

from vgs_ray.config import (
    Beam,
    Clean,
    Engine,
    Evaluate,
    Generator,
    Recipe,
    Resources,
    RollIn,
    RollOut,
    Serve,
    Train,
    Verify,
)
from vgs_ray.prompts import R1_INSTRUCTION

POLICY_NODES = ("ray.io/accelerator-type=L40S",)
VALUE_NODES = ("ray.io/accelerator-type=H100",)
CPU_NODES = ("ray.io/accelerator-type=!in(L40S,H100)",)
DISTILL = "deepseek-ai/DeepSeek-R1-Distill-Qwen-"


def vgs() -> Recipe:
    """The published run (arXiv 2505.17373): OpenR1-Math, the R1-Distill policies, a 1.5B value model (docs/vgs.md)."""
    contests = ("aime-24", "aime-25", "hmmt-feb-24", "hmmt-feb-25")
    return Recipe(
        name="vgs",
        seed=1337,
        instruction=R1_INSTRUCTION,
        cpu_nodes=CPU_NODES,
        clean=Clean(exclude=(*contests, "math-500"), workers=32),
        roll_in=RollIn(
            # In proportion to the time that each model takes: 64 GPUs, on 16 nodes with 4.
            generators=(
                _generator("1.5B", replicas=4),
                _generator("7B", replicas=8),
                _generator("14B", replicas=10, gpus=2),
                _generator("32B", replicas=8, gpus=4),
            ),
            per_problem=14,
        ),
        roll_out=RollOut(cuts=4, positions="sqrt", resources=Resources(replicas=64, nodes=POLICY_NODES)),
        verify=Verify(workers=32),
        train=Train(workers=64, nodes=VALUE_NODES),
        evaluate=Evaluate(
            benchmarks=contests,
            samples=256,
            beam=Beam(keep=4, branch=2, groups=32),
            budgets=(8, 16, 32, 64, 128, 256),
            resources=Resources(replicas=64, num_cpus=2.0, nodes=VALUE_NODES),
        ),
        serve=Serve(
            beam=Beam(keep=4, branch=2, groups=4),
            policy_engine=Engine(),
            value_engine=Engine(),
            policy_resources=Resources(replicas=4, nodes=VALUE_NODES),
            value_resources=Resources(replicas=4, nodes=VALUE_NODES),
        ),
    )


def _generator(size: str, replicas: int, gpus: int = 1) -> Generator:
    """A policy on L40S GPUs, whose 45 GiB hold its part of the weights and of 16 sequences of the maximum length."""
    engine = Engine(tensor_parallel_size=gpus, gpu_memory_utilization=0.93)
    return Generator(
        size, DISTILL + size, engine=engine, resources=Resources(replicas, num_gpus=float(gpus), nodes=POLICY_NODES)
    )


def vgs_trial() -> Recipe:
    """All stages of `vgs` on 200 raw problems and one machine with two GPUs of 80 GB, as a trial."""
    whole, anywhere = vgs(), Resources()
    pair = {"engine": Engine(tensor_parallel_size=2), "resources": Resources(num_gpus=2.0)}
    one = {"engine": None, "resources": anywhere}
    small = (replace(each, **(pair if each.name in ("14B", "32B") else one)) for each in whole.roll_in.generators)
    return replace(
        whole,
        name="vgs_trial",
        cpu_nodes=(),
        clean=replace(whole.clean, limit=200, workers=8),
        roll_in=replace(whole.roll_in, generators=tuple(small)),
        roll_out=replace(whole.roll_out, resources=anywhere),
        verify=Verify(),
        train=replace(whole.train, workers=2, steps=200, batch_size=64, nodes=()),
        evaluate=replace(whole.evaluate, limit=5, resources=Resources(num_cpus=2.0)),
        serve=replace(whole.serve, policy_resources=anywhere, value_resources=anywhere),
    )
