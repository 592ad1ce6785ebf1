"""Particle filter with entropic annealing (ePF, arXiv 2510.05825); without annealing, that of arXiv 2502.01618.

A particle is a prefix. Each round extends all particles by a block and draws the particles of the next round in proportion to
the odds of their values. If few different particles would be drawn, the weights are annealed. Unlike in the papers, a finished
answer leaves the filter and votes once, and there is no look-ahead: a value is the probability that the finished answer is
correct.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from vgs_ray.config import ParticleFilter
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Policy, Value
from vgs_ray.search.rounds import search_rounds
from vgs_ray.search.tree import Tree

EDGE = 1e-6
"""Values are kept this far from 0 and 1, where their odds are 0 and infinite."""
HALVINGS = 40
"""Of the interval of the inverse temperature."""


async def particle_filter(
    policy: Policy, value: Value, prompt: Tokens, *, shape: ParticleFilter, seed: int, **others: Any
) -> Tree:
    """Search in rounds, in which particles are drawn again.

    Args:
        policy, value, prompt, shape, seed: as in `search_rounds`; the seed also draws the particles.
        others: its other arguments.

    Raises:
        ValueError: a size is below 1.
    """

    def share(values: Sequence[float], particles: int, round: int) -> list[int]:
        start = random.Random(stable_seed(seed, "resample", round)).random()
        return resample(annealed_weights(values, shape.effective), particles, start)

    return await search_rounds(policy, value, prompt, shape=shape, share=share, seed=seed, **others)


def annealed_weights(values: Sequence[float], effective: float) -> list[float]:
    """Weights in proportion to (v / (1 - v)) ** b, with the largest b of at most 1 that leaves enough particles effective.

    The effective sample size is 1 / sum(w ** 2).

    Args:
        values: in [0, 1].
        effective: least effective sample size, as a share of their number, in [0, 1].

    Returns:
        Weights with the sum 1; empty without values.
    """
    kept = [min(max(value, EDGE), 1 - EDGE) for value in values]
    log_odds = [math.log(value / (1 - value)) for value in kept]
    low, high = 0.0, 1.0  # the effective sample size falls from their number at 0
    weights = _softmax(log_odds)
    if not values or effective_size(weights) >= effective * len(values):
        return weights
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        weights = _softmax([middle * each for each in log_odds])
        low, high = (middle, high) if effective_size(weights) >= effective * len(values) else (low, middle)
    return _softmax([low * each for each in log_odds])


def effective_size(weights: Sequence[float]) -> float:
    """Effective sample size of weights with the sum 1."""
    return 1 / math.fsum(weight * weight for weight in weights)


def resample(weights: Sequence[float], particles: int, start: float) -> list[int]:
    """Systematic resampling: how often each particle is drawn, which differs from its expectation by less than 1.

    Args:
        weights: with the sum 1.
        particles: to draw.
        start: in [0, 1): place of the first draw within its stratum.
    """
    ends = [round(end * particles - start, 9) for end in accumulate(weights)]
    drawn = [min(max(math.ceil(end), 0), particles) for end in ends[:-1]] + [particles] * bool(ends)
    return [after - before for before, after in zip([0, *drawn], drawn, strict=False)]


def _softmax(logits: Sequence[float]) -> list[float]:
    top = max(logits, default=0.0)
    weights = [math.exp(each - top) for each in logits]
    return [weight / math.fsum(weights) for weight in weights]
