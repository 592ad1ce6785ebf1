"""roll_in: `problems` -> `roll_ins`, whole answers sampled by the generators. Ids and seeds exist before generation.

Problems of the test split get none, and so nothing of them reaches training.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipelines.actors.sampling import Totals, sample_blocks
from pipelines.cli import cli
from pipelines.session import progress, ray_session
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import StageTable, committed_ids, drop_committed, stage_table, value_counts
from vgs_ray.config import Generator, Recipe, Resources, RollIn
from vgs_ray.data.ids import roll_in_id, stable_seed
from vgs_ray.data.schemas import ROLL_IN_REQUESTS
from vgs_ray.errors import UserError
from vgs_ray.models import model_path
from vgs_ray.prompts import load_tokenizer, prompt_tokens


def assign(generators: tuple[Generator, ...], per_problem: int) -> list[Generator]:
    """The generator of each of a problem's roll-ins, in proportion to the shares; the same for every problem."""
    total = sum(generator.share for generator in generators)
    chosen, bound, position = [], 0.0, 0
    for generator in generators:
        bound += generator.share / total * per_problem
        while position < per_problem and position + 0.5 <= bound + 1e-9:
            chosen.append(generator)
            position += 1
    return chosen


def requests_of(
    problem: dict[str, Any], generator: Generator, indices: list[int], recipe: Recipe
) -> list[dict[str, Any]]:
    """The rows that one generator has to write for one problem."""
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


def branch(
    problems: StageTable, generator: Generator, indices: list[int], recipe: Recipe, done: ray.ObjectRef, out: StageTable
) -> ray.data.Dataset:
    """All roll-ins of one generator that are not durable yet."""

    def expand(batch: pa.Table) -> pa.Table:
        batch = batch.filter(pc.not_equal(batch["split"], "test"))
        rows = [row for problem in batch.to_pylist() for row in requests_of(problem, generator, indices, recipe)]
        return drop_committed(pa.Table.from_pylist(rows, schema=ROLL_IN_REQUESTS), "roll_in_id", ray.get(done))

    config = recipe.roll_in
    columns = ["problem_id", "problem", "split"]
    requests = problems.ray_dataset(columns).map_batches(expand, batch_format="pyarrow", batch_size=512)
    engine, resources = generator.engine or config.engine, generator.resources or config.resources
    return sample_blocks(requests, generator.model, engine, resources, config.sampling, out)


def side_by_side(generators: tuple[Generator, ...], default: Resources, gpus: float) -> list[list[Generator]]:
    """Generators in groups whose engines fit into so many GPUs together; the groups follow one another."""
    groups: list[list[Generator]] = []
    free = 0.0
    for generator in generators:
        resources = generator.resources or default
        needed = resources.num_gpus * resources.replicas
        if not groups or needed > free:
            groups.append([])
            free = gpus
        groups[-1].append(generator)
        free -= needed
    return groups


def run(recipe: Recipe) -> None:
    config = recipe.roll_in
    _check(config)
    stage = open_stage(recipe, "roll_in", inputs=("clean",))
    if stage is None:
        return
    problems, out = stage_table(recipe, "clean"), stage_table(recipe, "roll_in").claim()
    places = assign(config.generators, config.per_problem)
    expected = (problems.count_rows() - value_counts(problems, "split").get("test", 0)) * config.per_problem
    totals = Totals("roll_in", config.max_error_share)
    with ray_session(folder=stage.folder), progress("roll_in", expected, out.count_rows, note=totals.note):
        if out.count_rows() < expected:
            done = ray.put(committed_ids(out))
            gpus = ray.cluster_resources().get("GPU", 0.0)
            for group in side_by_side(config.generators, config.resources, gpus):
                branches = [
                    branch(problems, generator, [i for i, p in enumerate(places) if p == generator], recipe, done, out)
                    for generator in group
                ]
                totals.run(branches[0].union(*branches[1:]) if branches[1:] else branches[0])
    stage.close(
        rows=out.count_rows(),
        finish=value_counts(out, "finish_reason"),
        policies=value_counts(out, "policy"),
        speed=totals.speed(),
    )


def _check(config: RollIn) -> None:
    if not config.generators:
        raise UserError("roll_in.generators is empty; roll-ins need one policy at least: name one in the recipe")


if __name__ == "__main__":
    cli(run, "pipelines.roll_in")
