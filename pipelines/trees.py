"""trees: a stage of SVPO."""

from __future__ import annotations

from pipelines.cli import cli
from vgs_ray.config import Recipe


def run(recipe: Recipe) -> None:
    raise NotImplementedError


if __name__ == "__main__":
    cli(run, "pipelines.trees")
