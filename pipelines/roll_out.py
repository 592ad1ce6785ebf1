"""roll_out: `roll_ins` -> `roll_outs`, completions by the reference policy from cuts of each roll-in."""

from __future__ import annotations

from typing import Any

import ray

from pipelines.generate import generate
from pipelines.recipes import cli
from pipelines.session import progress, ray_session
from pipelines.stage import open_stage
from pipelines.tables import count_by, done_keys, parts_of, write
from vgs_ray.config import Recipe
from vgs_ray.ids import roll_out_id, stable_seed
from vgs_ray.labels.outcomes import cut_positions


def requests_of(roll_in: dict[str, Any], recipe: Recipe) -> list[dict[str, Any]]:
    """The rows that the reference policy has to write for one roll-in; a failed roll-in is cut at its prompt."""
    config, tokens, prompt = recipe.roll_out, list(roll_in["tokens"]), list(roll_in["prompt"])
    cuts = cut_positions(
        len(tokens), config.cuts, config.positions, stable_seed(recipe.seed, roll_in["roll_in_id"], "cuts")
    )
    rows = []
    for index, cut in enumerate(cuts):
        identity = roll_out_id(roll_in["roll_in_id"], index)
        rows.append(
            {
                "roll_out_id": identity,
                "roll_in_id": roll_in["roll_in_id"],
                "problem_id": roll_in["problem_id"],
                "cut": cut,
                "seed": stable_seed(recipe.seed, identity),
                "prefix": prompt + tokens[:cut],
                "max_tokens": config.sampling.max_tokens - cut,
            }
        )
    return rows


def run(recipe: Recipe) -> None:
    config = recipe.roll_out
    stage = open_stage(recipe, "roll_out", inputs=("roll_in",))
    if stage is None:
        return
    roll_ins, out = parts_of(recipe, "roll_in"), parts_of(recipe, "roll_out")
    expected = roll_ins.rows() * config.cuts
    with ray_session(), progress("roll_out", expected, out.rows):
        if out.rows() < expected:
            done = ray.put(done_keys(out))

            def expand(roll_in: dict[str, Any]) -> list[dict[str, Any]]:
                return [row for row in requests_of(roll_in, recipe) if row["roll_out_id"] not in ray.get(done)]

            source = roll_ins.dataset(["roll_in_id", "problem_id", "prompt", "tokens"])
            write(generate(source.flat_map(expand), config.model, config.engine, config.sampling), out)
    stage.close(rows=out.rows(), finish=count_by(out, "finish_reason"))


if __name__ == "__main__":
    cli(run, "pipelines.roll_out")
