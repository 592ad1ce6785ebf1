"""roll_in: `problems` -> `roll_ins`, complete answers that the generators sample, or select by a guided search.

Ids and seeds are fixed before generation. Problems of the test split get no roll-ins, so training never sees them.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipelines.actors.sampling import Guide, Totals, sample_blocks
from pipelines.cli import cli
from pipelines.placement import gpus_at_once
from pipelines.progress import progress, watched
from pipelines.session import ray_session
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import StageTable, committed_ids, drop_committed, stage_table, value_counts
from vgs_ray.config import Engine, Generator, Recipe, Resources
from vgs_ray.data.schemas import ROLL_IN_REQUESTS
from vgs_ray.errors import UserError
from vgs_ray.labels.sampling_requests import roll_in_requests


def assign_generators(generators: tuple[Generator, ...], per_problem: int) -> list[Generator]:
    """The generator of each roll-in of a problem, in proportion to the shares. All problems have the same assignment."""
    total = sum(generator.share for generator in generators)
    assigned, bound, position = [], 0.0, 0
    for generator in generators:
        bound += generator.share / total * per_problem
        while position < per_problem and position + 0.5 <= bound + 1e-9:
            assigned.append(generator)
            position += 1
    return assigned


def pending_requests(
    problems: ray.data.Dataset, generator: Generator, indices: list[int], recipe: Recipe, committed: ray.ObjectRef
) -> ray.data.Dataset:
    """The requests to one generator whose roll-ins are not committed yet, in the order of the problems."""

    def expand(batch: pa.Table) -> pa.Table:
        batch = batch.filter(pc.not_equal(batch["split"], "test"))
        rows = [row for problem in batch.to_pylist() for row in roll_in_requests(problem, generator, indices, recipe)]
        return drop_committed(pa.Table.from_pylist(rows, schema=ROLL_IN_REQUESTS), "roll_in_id", ray.get(committed))

    return problems.map_batches(expand, batch_format="pyarrow", batch_size=512)


def concurrent_groups(generators: tuple[Generator, ...], default: Resources, gpus: float) -> list[list[Generator]]:
    """Groups of generators whose engines fit into `gpus` GPUs together. The groups run one after another."""
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


def guide_of(generator: Generator, engine: Engine) -> Guide | None:
    """The search of a generator, if it searches. `engine` is that of its policy."""
    if not generator.search:
        return None
    return Guide(generator.search, generator.value_model, generator.value_engine or engine)


def sample_roll_ins(
    recipe: Recipe, problems: StageTable, out: StageTable, totals: Totals, committed: ray.ObjectRef
) -> None:
    """Sample the roll-ins that are not committed yet."""
    config, ordered = recipe.roll_in, problems.in_order(["problem_id", "problem", "split"])
    assigned = assign_generators(config.generators, config.per_problem)
    for group in concurrent_groups(config.generators, config.resources, gpus_at_once()):
        blocks = []
        # Engines on many GPUs start first; others would leave no node with that many free.
        for generator in sorted(group, key=lambda each: -(each.resources or config.resources).num_gpus):
            indices = [index for index, each in enumerate(assigned) if each == generator]
            requests = pending_requests(ordered, generator, indices, recipe, committed)
            engine, resources = generator.engine or config.engine, generator.resources or config.resources
            guide = guide_of(generator, engine)
            blocks.append(sample_blocks(requests, generator.model, engine, resources, config.sampling, out, guide))
        totals.run(blocks[0].union(*blocks[1:]) if blocks[1:] else blocks[0])


def run(recipe: Recipe) -> None:
    config = recipe.roll_in
    if not config.generators:
        raise UserError("roll_in.generators is empty; roll-ins need at least one generator: add one in the recipe")
    stage = open_stage(recipe, "roll_in", inputs=("clean",))
    if stage is None:
        return
    problems, out = stage_table(recipe, "clean"), stage_table(recipe, "roll_in").claim()
    expected = (problems.count_rows() - value_counts(problems, "split").get("test", 0)) * config.per_problem
    totals = Totals("roll_in", config.max_error_share)
    with (
        ray_session(folder=stage.folder, nodes=stage.nodes),
        progress("roll_in", expected, out.count_rows, note=totals.note, watch=watched(out)),
    ):
        if len(committed := committed_ids(out)) < expected:
            sample_roll_ins(recipe, problems, out, totals, ray.put(committed))
        out = stage.publish(out)
    stage.close(
        rows=out.count_rows(),
        finish=value_counts(out, "finish_reason"),
        policies=value_counts(out, "policy"),
        speed=totals.speed(),
    )


if __name__ == "__main__":
    cli(run, "pipelines.roll_in")
