"""What is known of roll-ins and roll-outs before they are sampled: ids, seeds, prefixes, and limits of tokens."""

from __future__ import annotations

from typing import Any

from vgs_ray.config import Generator, Recipe
from vgs_ray.data.ids import roll_in_id, roll_out_id, stable_seed
from vgs_ray.labels.outcomes import cut_positions
from vgs_ray.models import model_path
from vgs_ray.prompts import load_tokenizer, prompt_tokens


def roll_in_requests(
    problem: dict[str, Any], generator: Generator, indices: list[int], recipe: Recipe
) -> list[dict[str, Any]]:
    """The requests to one generator for one problem. `indices` number the roll-ins within the problem."""
    tokenizer = load_tokenizer(model_path(generator.model))
    prompt = list(prompt_tokens(tokenizer, problem["problem"], recipe.instruction))
    rows = []
    for index in indices:
        identity = roll_in_id(problem["problem_id"], generator.name, index)
        rows.append(
            {
                "roll_in_id": identity,
                "problem_id": problem["problem_id"],
                "policy": generator.name,
                "seed": stable_seed(recipe.seed, identity),
                "prompt": prompt,
                "prefix": prompt,
                "max_tokens": recipe.roll_in.sampling.max_tokens,
            }
        )
    return rows


def roll_out_requests(roll_in: dict[str, Any], recipe: Recipe) -> list[dict[str, Any]]:
    """The requests for one roll-in, one for each cut. A failed roll-in has no tokens, so all cuts are at its prompt."""
    config, tokens, prompt = recipe.roll_out, list(roll_in["tokens"]), list(roll_in["prompt"])
    seed = stable_seed(recipe.seed, roll_in["roll_in_id"], "cuts")
    rows = []
    for index, cut in enumerate(cut_positions(len(tokens), config.cuts, config.positions, seed, config.scheme)):
        identity = roll_out_id(roll_in["roll_in_id"], index)
        rows.append(
            {
                "roll_out_id": identity,
                "roll_in_id": roll_in["roll_in_id"],
                "problem_id": roll_in["problem_id"],
                "policy": recipe.policy.model,
                "cut": cut,
                "seed": stable_seed(recipe.seed, identity),
                "prefix": prompt + tokens[:cut],
                "max_tokens": config.sampling.max_tokens - cut,
            }
        )
    return rows
