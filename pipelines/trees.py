"""trees: `problems` -> `trees`, search trees of training problems with the outcome of every answer (SVPO).

Ids and seeds are fixed before the growth. The first trees of all problems come before the second ones, so an interrupted table
covers all problems about equally. Problems of the test split get no trees.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import ray

from pipelines.actors.growing import TreeActor
from pipelines.actors.sampling import Totals, check_nodes
from pipelines.cli import cli
from pipelines.session import progress, ray_session
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import StageTable, committed_ids, drop_committed, stage_table, value_counts
from vgs_ray.config import Recipe
from vgs_ray.data.ids import stable_seed, tree_id
from vgs_ray.data.schemas import TREE_REQUESTS
from vgs_ray.engines.vocabularies import find_translation
from vgs_ray.models import OWN_HEAD, RANDOM, model_path
from vgs_ray.models.checks import value_model

BLOCK_ROWS = 32
BATCH_ROWS = 1024


def tree_requests(problem: dict[str, Any], index: int, recipe: Recipe) -> dict[str, Any]:
    """The request for one tree of a problem."""
    identity = tree_id(problem["problem_id"], index)
    seed = stable_seed(recipe.seed, identity)
    return {**problem, "tree_id": identity, "policy": recipe.policy.model, "seed": seed}


def pending_requests(problems: StageTable, index: int, recipe: Recipe, committed: ray.ObjectRef) -> ray.data.Dataset:
    """The requests for the trees with this index that are not committed yet, one for each problem."""

    def expand(batch: pa.Table) -> pa.Table:
        rows = batch.filter(pc.not_equal(batch["split"], "test")).to_pylist()
        requests = [tree_requests(row, index, recipe) for row in rows]
        return drop_committed(pa.Table.from_pylist(requests, schema=TREE_REQUESTS), "tree_id", ray.get(committed))

    columns = ["problem_id", "problem", "answer", "split"]
    return problems.ray_dataset(columns).map_batches(expand, batch_format="pyarrow", batch_size=512)


def grow_trees(recipe: Recipe, value: str, problems: StageTable, out: StageTable) -> ray.data.Dataset:
    """Grow the trees that are not committed yet in `resources.replicas` actors.

    Returns:
        The counts of each block, as a lazy dataset.
    """
    config, committed = recipe.trees, ray.put(committed_ids(out))
    check_nodes(config.resources)
    first, *others = [pending_requests(problems, index, recipe, committed) for index in range(config.per_problem)]
    requests = first.union(*others) if others else first
    return requests.repartition(target_num_rows_per_block=BLOCK_ROWS).map_batches(
        TreeActor,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            size=config.resources.replicas,
            max_concurrent_calls_per_actor=1 + math.ceil(config.concurrent / BLOCK_ROWS),
        ),
        num_cpus=config.resources.num_cpus,
        num_gpus=config.resources.num_gpus,
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
    trees, leaves = Counter[str](), Counter[str]()
    problems, solved = set[str](), set[str]()
    batches = pads.dataset(table.part_files(), schema=table.schema).to_batches(
        columns=["problem_id", "outcomes", "error"], batch_size=BATCH_ROWS
    )
    for row in (row for batch in batches for row in batch.to_pylist()):
        outcomes = Counter(row["outcomes"])
        trees.update(rows=1, errors=row["error"] is not None, nodes=outcomes.total())
        leaves.update({outcome: count for outcome, count in outcomes.items() if outcome})
        problems.add(row["problem_id"])
        if outcomes["correct"]:
            solved.add(row["problem_id"])
    return {
        "rows": trees["rows"],
        "errors": trees["errors"],
        "nodes": trees["nodes"],
        "leaves": dict(sorted(leaves.items())),
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
        ray_session(folder=stage.folder),
        progress("trees", expected, out.count_rows, unit="tree", note=totals.note),
    ):
        if out.count_rows() < expected:
            totals.run(grow_trees(recipe, value, problems, out))
    stage.close(**tree_counts(out), speed=totals.speed())


if __name__ == "__main__":
    cli(run, "pipelines.trees")
