"""Later rounds of a run: the recipe of each round as a function of the first one's. Pure."""

from __future__ import annotations

from dataclasses import replace

from vgs_ray.config import Recipe
from vgs_ray.errors import UserError
from vgs_ray.models import OWN_HEAD


def next_round(recipe: Recipe, number: int) -> Recipe:
    """The recipe of one round. Round 1 is `recipe`; a later round is a run of its own with the problems of round 1.

    A recipe with stage tune (SVPO, arXiv 2406.10858) goes on with the tuned model: it grows the trees with its own values, at
    temperature 1 (AlphaMath, arXiv 2405.03553), and is tuned further.

    Args:
        recipe: the recipe of round 1.
        number: of the round, from 1.

    Raises:
        UserError: the recipe has no stage that makes a model.
    """
    if number == 1:
        return recipe
    before = next_round(recipe, number - 1)
    name = recipe.run_name or recipe.name
    later = replace(
        recipe,
        run_name=f"{name}-round-{number}",
        base_run=recipe.base_run if "clean" in recipe.base_stages else name,
        base_stages=("clean",),
    )
    if "tune" in recipe.stages:
        return _with_tuned_policy(later, str(before.stage_folder("tune") / "model"))
    raise UserError(
        f"recipe {recipe.name} has the stages {', '.join(recipe.stages)}; a round needs the model of stage tune: pass --rounds 1"
    )


def _with_tuned_policy(recipe: Recipe, model: str) -> Recipe:
    trees = recipe.trees
    return replace(
        recipe,
        policy=replace(recipe.policy, model=model),
        trees=replace(trees, value_model=OWN_HEAD, sampling=replace(trees.sampling, temperature=1.0)),
        tune=replace(recipe.tune, init=model),
    )
