"""run: all stages of a recipe in order, then the report and one question to the served search.

Finished stages are skipped and an interrupted stage continues, so the same command always reaches the same result.
"""

from __future__ import annotations

from pipelines import clean, evaluate, label, pairs, roll_in, roll_out, serve, train, trees, tune, verify
from pipelines.cli import cli
from pipelines.session import ray_session
from pipelines.tables.sources import benchmark_problems
from vgs_ray.config import Recipe
from vgs_ray.config.checks import check_recipe
from vgs_ray.models.checks import check_models

MODULES = {
    module.__name__.rpartition(".")[2]: module
    for module in (clean, roll_in, roll_out, verify, label, train, trees, pairs, tune, evaluate)
}


def run(recipe: Recipe) -> None:
    check_recipe(recipe)
    for name in recipe.stages:  # before the first one takes hours
        if not (recipe.stage_folder(name) / "_stage.json").exists():
            check_models(recipe, name)
    with ray_session(recipe.serve):
        for name in recipe.stages:
            MODULES[name].run(recipe)
        evaluate.show(recipe)
        source = next(iter(evaluate.benchmark_sources(recipe.evaluate).values()))
        first = benchmark_problems(source, 1).take(1)[0]
        serve.ask_once(recipe, first["problem"])


if __name__ == "__main__":
    cli(run, "pipelines.run")
