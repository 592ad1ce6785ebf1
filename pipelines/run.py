"""run: every stage of a recipe in order, then the report and one question to the served search.

Finished stages are skipped, an interrupted one goes on; so the same command always ends in the same place.
"""

from __future__ import annotations

from importlib import import_module

from pipelines.cli import cli
from pipelines.evaluate import sources
from pipelines.session import ray_session
from pipelines.tables.sources import benchmark_problems
from vgs_ray.config import STAGES, Recipe
from vgs_ray.config.checks import check_recipe
from vgs_ray.models.checks import check_models


def run(recipe: Recipe) -> None:
    check_recipe(recipe)
    for name in STAGES:  # before the first one takes hours
        if not (recipe.folder / name / "_stage.json").exists():
            check_models(recipe, name)
    with ray_session(recipe.serve):
        for name in STAGES:
            import_module(f"pipelines.{name}").run(recipe)
        import_module("pipelines.evaluate").show(recipe)
        source = next(iter(sources(recipe.evaluate).values()))
        first = benchmark_problems(source, 1).take(1)[0]
        import_module("pipelines.serve").ask_once(recipe, first["problem"])


if __name__ == "__main__":
    cli(run, "pipelines.run")
