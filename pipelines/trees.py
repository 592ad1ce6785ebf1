"""trees: `problems` -> `trees`, search trees of training problems with the outcome of every answer (SVPO).

Ids and seeds are fixed before the growth. The first trees of all problems are requested before the second ones, so an interrupted
table covers all problems about equally. Problems of the test split get no trees.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipelines.actors.growing import TreeActor
from pipelines.actors.sampling import Totals
from pipelines.cli import cli
from pipelines.placement import check_engine_nodes, engine_actors, engine_options
from pipelines.progress import progress, watched
from pipelines.session import ray_session
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import StageTable, committed_ids, drop_committed, stage_table, value_counts
from pipelines.tables.tasks import map_items
from vgs_ray.config import Recipe
from vgs_ray.data.ids import stable_seed, tree_id
from vgs_ray.data.schemas import TREE_REQUESTS
from vgs_ray.engines.vocabularies import find_translation
from vgs_ray.models import OWN_HEAD, RANDOM, model_path
from vgs_ray.models.checks import value_model

BLOCK_ROWS = 32
BATCH_ROWS = 1024


def tree_request(problem: dict[str, Any], index: int, recipe: Recipe) -> dict[str, Any]:
    """The request for one tree of a problem."""
    identity = tree_id(problem["problem_id"], index)
    return {**problem, "tree_id": identity, "policy": recipe.policy.model, "seed": stable_seed(recipe.seed, identity)}


def pending_requests(problems: StageTable, recipe: Recipe, committed: ray.ObjectRef) -> ray.data.Dataset:
    """The requests for the trees that are not committed yet: for each number of a tree, those of all problems in their order."""
    blocks = problems.in_order(["problem_id", "problem", "answer", "split"]).to_arrow_refs()

    def requests(item: dict[str, Any]) -> pa.Table:
        rows: pa.Table = ray.get(blocks[item["block"]])
        rows = rows.filter(pc.not_equal(rows["split"], "test"))
        made = [tree_request(row, item["tree"], recipe) for row in rows.to_pylist()]
        return drop_committed(pa.Table.from_pylist(made, schema=TREE_REQUESTS), "tree_id", ray.get(committed))

    items = [{"tree": tree, "block": block} for tree in range(recipe.trees.per_problem) for block in range(len(blocks))]
    return map_items(items, requests, num_cpus=0.5)


def grow_trees(recipe: Recipe, value: str, problems: StageTable, out: StageTable) -> ray.data.Dataset:
    """Grow the trees that are not committed yet in `resources.replicas` actors.

    Returns:
        The counts of each block, as a lazy dataset.
    """
    config = recipe.trees
    check_engine_nodes("trees.resources", config.resources)
    requests = pending_requests(problems, recipe, ray.put(committed_ids(out)))
    return requests.repartition(target_num_rows_per_block=BLOCK_ROWS).map_batches(
        TreeActor,
        batch_size=BLOCK_ROWS,  # one batch a block; Ray Data requires a number for actors with GPUs
        batch_format="pyarrow",
        compute=engine_actors(config.resources.replicas, 1 + math.ceil(config.concurrent / BLOCK_ROWS)),
        **engine_options(config.resources),
        fn_constructor_kwargs={"recipe": recipe, "value_model": value, "out": out},
    )


def note_translation(policy: str, value: str) -> None:
    """Print a line if the value model has another tokenizer than the policy, because it then reads the tokens as text."""
    if value not in ("", OWN_HEAD, RANDOM) and find_translation(model_path(policy), value):
        print(
            f"the value model {value} has another tokenizer than the policy {policy}: prefixes are decoded, and the value model "
            "reads their text",
            flush=True,
        )


def tree_counts(table: StageTable) -> dict[str, Any]:
    """Counts for the manifest."""
    trees, outcomes = Counter[str](), Counter[str | None]()
    problems, solved = set[str](), set[str]()
    batches = table.dataset().to_batches(columns=["problem_id", "outcomes", "error"], batch_size=BATCH_ROWS)
    for batch in batches:
        lists = batch["outcomes"]
        trees.update(rows=len(batch), errors=len(batch) - batch["error"].null_count)
        outcomes.update({each["values"]: each["counts"] for each in lists.flatten().value_counts().to_pylist()})
        correct = pc.fill_null(pc.equal(lists.flatten(), "correct"), False)
        problems.update(batch["problem_id"].to_pylist())
        solved.update(batch["problem_id"].take(pc.list_parent_indices(lists).filter(correct)).unique().to_pylist())
    return {
        "rows": trees["rows"],
        "errors": trees["errors"],
        "nodes": outcomes.total(),
        "leaves": {outcome: outcomes[outcome] for outcome in sorted(filter(None, outcomes))},
        "problems": len(problems),
        "without_correct_answer": len(problems - solved),
    }


def run(recipe: Recipe) -> None:
    config = recipe.trees
    stage = open_stage(recipe, "trees", inputs=("clean",))
    if stage is None:
        return
    value = value_model(recipe, config.value_model) if config.value_model else ""
    note_translation(recipe.policy.model, value)
    problems, out = stage_table(recipe, "clean"), stage_table(recipe, "trees").claim()
    expected = (problems.count_rows() - value_counts(problems, "split").get("test", 0)) * config.per_problem
    totals = Totals("trees", config.max_error_share)
    with (
        ray_session(folder=stage.folder, nodes=stage.nodes),
        progress("trees", expected, out.count_rows, unit="tree", note=totals.note, watch=watched(out)),
    ):
        if len(committed_ids(out)) < expected:
            totals.run(grow_trees(recipe, value, problems, out))
        out = stage.publish(out)
    stage.close(**tree_counts(out), speed=totals.speed())


if __name__ == "__main__":
    cli(run, "pipelines.trees")
