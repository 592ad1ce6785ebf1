"""The plan of a recipe with options, by stage."""

from __future__ import annotations

from pipelines.cli import parse
from pipelines.plan import plan
from vgs_ray.evaluate.estimate import StageCost

SANDBOX_MODELS = ("--policy.model", "sandbox:ref", "--train.init", "sandbox:ref")
"""Models whose sizes are known without a network."""


def costs_of(*arguments: str) -> tuple[dict[str, StageCost], str]:
    """The cost of each stage, and the assumptions."""
    costs, lines = plan(parse("pipelines.plan", list(arguments)))
    return {cost.stage: cost for cost in costs}, "\n".join(lines)
