"""What Ray reserves for engines. Nothing here changes a row."""

from __future__ import annotations

from dataclasses import dataclass

from vgs_ray.config.ranges import Labels, NonNegativeFloat, PositiveInt


@dataclass(frozen=True)
class Resources:
    """The actors that hold engines: how many there are, and what Ray reserves for each."""

    replicas: PositiveInt = 1
    """Number of actors."""
    num_cpus: NonNegativeFloat = 1.0
    """CPUs that Ray reserves for each actor."""
    num_gpus: NonNegativeFloat = 1.0
    """GPUs that Ray reserves for each actor. Actors share a GPU if this is a fraction."""
    nodes: Labels = ()
    """Labels that a node needs, each KEY=VALUE. They apply to the actors and to the other tasks of the stage. Without labels,
    every node may hold them."""
    starts_at_once: PositiveInt = 2
    """Maximum number of actors that start at once on one machine. Those that share a GPU always start one at a time."""
