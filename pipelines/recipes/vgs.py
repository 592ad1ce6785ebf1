"""The recipe of the published VGS run."""

from __future__ import annotations

from vgs_ray.config import Beam, Clean, Engine, Evaluate, Generator, Recipe, Resources, RollIn, RollOut, Serve, Train
from vgs_ray.prompts import R1_INSTRUCTION


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
