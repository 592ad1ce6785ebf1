"""The probabilities that stage evaluate fits and the endpoint replies with: one JSON file in the folder of the stage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from vgs_ray.config import Recipe
from vgs_ray.data.files import write_json
from vgs_ray.models.checks import evaluated_policy
from vgs_ray.search.answer_probability import AnswerProbability, FittedProbabilities

FILE = "probability.json"


def write_probabilities(recipe: Recipe, fitted: Mapping[str, AnswerProbability]) -> None:
    """Write what was fitted, with the searches and models of the evaluation."""
    config = recipe.evaluate
    budgets = min(config.budgets), max(config.budgets)
    stored = asdict(FittedProbabilities(config.beam, config.sampling, budgets, fitted))
    write_json(recipe.stage_folder("evaluate") / FILE, stored | _models(recipe, config.value_model))


def read_probabilities(recipe: Recipe) -> FittedProbabilities | None:
    """What the evaluation of this run fitted; None without an evaluation, or if the endpoint has other models."""
    file = recipe.stage_folder("evaluate") / FILE
    if not file.exists():
        return None
    stored = json.loads(file.read_text())
    same_models = stored == stored | _models(recipe, recipe.serve.value_model)
    return FittedProbabilities.from_json(stored) if same_models else None


def _models(recipe: Recipe, value_model: str) -> dict[str, str]:
    """The models as the recipe names them. An empty name is the value model that stage train wrote."""
    return {"policy": evaluated_policy(recipe), "value_model": value_model}
