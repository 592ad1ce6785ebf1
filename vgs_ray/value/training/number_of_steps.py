"""The number of steps of a run."""

from __future__ import annotations

import math
from dataclasses import replace

from vgs_ray.config import Train
from vgs_ray.value.training.loader import Examples
from vgs_ray.value.training.partition import Ints


def with_steps(config: Train, examples: Examples) -> Train:
    """The configuration with the number of steps: `steps`, or as many as `epochs` passes over the units need."""
    units = examples.units()
    steps = math.ceil(config.epochs * len(units) / batch_units(config, units))
    return replace(config, steps=config.steps or steps)


def batch_units(config: Train, units: Ints) -> int:
    """Units in a batch of `batch_size` sequences."""
    return max(1, config.batch_size // units.shape[1])
