"""Later rounds of a run: the recipe of each round as a function of the first one's. Pure."""

from __future__ import annotations

from dataclasses import replace

from vgs_ray.config import Generator, Recipe
from vgs_ray.errors import UserError
from vgs_ray.models import OWN_HEAD

SAMPLED = frozenset({"roll_in", "roll_out", "verify"})
"""Stages whose rows later rounds read too."""


def next_round(recipe: Recipe, number: int) -> Recipe:
    """The recipe of one round. Round 1 is `recipe`; a later round is a run of its own with the problems of round 1.

    A recipe with stage tune (SVPO, arXiv 2406.10858) goes on with the tuned model: it grows the trees with its own values, at
    temperature 1 (AlphaMath, arXiv 2405.03553), and is tuned further.

    A recipe with stage train (VGS, arXiv 2505.17373) trains a new value model on the roll-outs of all rounds so far. The roll-ins
    of the round are the best answers of the guided search with the last value model. So roll-outs start from prefixes that the
    search keeps, and the answers that the value model overrates become rows.

    Args:
        recipe: the recipe of round 1.
        number: of the round, from 1.

    Raises:
        UserError: the recipe's stages or labels do not allow rounds.
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
    first = recipe.base_run if set(recipe.base_stages) >= SAMPLED else name
    names = (first, *(f"{name}-round-{earlier}" for earlier in range(2, number)))
    _check_roll_outs(recipe)
    return _with_more_roll_outs(later, number, names, str(before.stage_folder("train") / "value_model"))


def _with_tuned_policy(recipe: Recipe, model: str) -> Recipe:
    trees = recipe.trees
    return replace(
        recipe,
        policy=replace(recipe.policy, model=model),
        trees=replace(trees, value_model=OWN_HEAD, sampling=replace(trees.sampling, temperature=1.0)),
        tune=replace(recipe.tune, init=model),
    )


def _check_roll_outs(recipe: Recipe) -> None:
    if not SAMPLED | {"train"} <= set(recipe.stages):
        raise UserError(
            f"recipe {recipe.name} has the stages {', '.join(recipe.stages)}; a round needs the model of stage tune, or stage "
            "train with roll-outs of its own: pass --rounds 1"
        )
    if recipe.train.share_policy:
        raise UserError(
            "train.share_policy is set; the roll-ins of a later round are searched with a separate value model: pass --rounds 1, "
            "or leave train.share_policy out"
        )
    if recipe.label.kind != "outcome":
        raise UserError(
            f"label.kind is {recipe.label.kind!r}; its values are shares of sampled paths, and answers that a search selected "
            "would bias them: pass --label.kind outcome, or --rounds 1"
        )
    if SAMPLED & set(recipe.base_stages) and not set(recipe.base_stages) >= SAMPLED:
        raise UserError(
            f"base_stages is {', '.join(recipe.base_stages)}; later rounds read {', '.join(sorted(SAMPLED))} of one run: take "
            "all of them from the base run or none, or pass --rounds 1"
        )


def _with_more_roll_outs(recipe: Recipe, number: int, earlier: tuple[str, ...], value_model: str) -> Recipe:
    config = recipe.evaluate
    searching = Generator(
        f"round-{number}",
        recipe.policy.model,
        search=replace(config.beam, groups=1),
        value_model=value_model,
        engine=config.policy_engine,
        value_engine=config.value_engine,
        resources=config.resources,
    )
    return replace(
        recipe,
        earlier_runs=earlier,
        roll_in=replace(recipe.roll_in, generators=(searching,)),
        roll_out=replace(recipe.roll_out, whole=True),
    )
