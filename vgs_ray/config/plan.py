"""Assumptions of `python -m pipelines.plan`."""

from __future__ import annotations

from dataclasses import dataclass

from vgs_ray.config.ranges import (
    NonEmptyStr,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    Share,
)


@dataclass(frozen=True)
class PlanAssumptions:
    """What a plan assumes. A field that is 0 is measured from the recipe's run folder, or has the default that its text names."""

    problems: NonNegativeInt = 0
    """Number of problems after cleaning; default: all rows of a local source, and of others 0.527 of `clean.limit` or of
    OpenR1-Math's 93,733 rows, as in arXiv 2505.17373."""
    prompt_tokens: NonNegativeFloat = 0.0
    """Mean length of a prompt in tokens; default 150."""
    roll_in_tokens: NonNegativeFloat = 0.0
    """Mean length of a roll-in, or of an answer in a recipe with stage trees, in tokens; default 0.85 of the maximum."""
    block_tokens: NonNegativeFloat = 0.0
    """Mean length of a block of a training tree in tokens; default: an answer has the maximum depth."""
    roll_out_tokens: NonNegativeFloat = 0.0
    """Mean length of a roll-out in tokens; default 0.353 of the maximum."""
    tokens_per_s: NonNegativeFloat = 0.0
    """Tokens per second that one GPU generates with the reference policy; other policies are scaled by their size. Default:
    `generate_share` of the peak."""
    peak_tflops: PositiveFloat = 989.0
    """Dense bfloat16 peak of one GPU in TFLOP/s (H100: 989)."""
    generate_share: PositiveShare = 0.04
    """Share of the peak that generation reaches."""
    train_share: PositiveShare = 0.15
    """Share of the peak that training reaches."""
    hopeless: Share = 0.0
    """Share of the roll-outs whose problem has no correct roll-out; default 0.099, as in arXiv 2505.17373."""
    sequences: PositiveInt = 16
    """Sequences of the maximum length whose keys and values the memory of an engine must hold, for `--cluster`."""
    prices: tuple[NonEmptyStr, ...] = ("c7i.8xlarge=1.43", "g6e.12xlarge=10.49", "p5.48xlarge=55.04")
    """Dollars an hour of an instance type, for `--cluster`. The defaults are AWS list prices in us-east-1, noted in 2025; they
    change."""
    spot_share: PositiveShare = 0.5
    """Price of a spot node as a share of that."""
