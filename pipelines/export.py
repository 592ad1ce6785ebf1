"""export: finished tables -> `export/OpenR1-VM` and `export/OpenR1-Cleaned`, Parquet shards with a card in the published layouts.

`datasets.load_dataset(FOLDER)` opens either folder on a disk, and `pyarrow.dataset.dataset("URL/data")` one on an object store.
`--export.hub NAME` uploads both to that account.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.cli import cli
from pipelines.progress import progress
from pipelines.session import ray_session
from pipelines.tables.by_problem import ProblemBatch, ProblemGroups, align
from pipelines.tables.manifest import read_manifest
from pipelines.tables.shards import ShardWriter, number_shards
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import StageTable, stage_table
from pipelines.tables.tasks import map_items
from vgs_ray.config import Recipe
from vgs_ray.data.cards import data_card
from vgs_ray.data.files import download_folder, remove_folder, write_atomically
from vgs_ray.data.node_disk import temporary_folder
from vgs_ray.data.openr1 import CLEANED, VM, cleaned_rows, given_tokens, vm_rows
from vgs_ray.data.storage import AnyPath, is_local, list_files
from vgs_ray.errors import UserError

INPUTS = ("clean", "roll_in", "roll_out", "verify", "label")
SPLITS = ("train", "validation", "test")  # only OpenR1-Cleaned has a test split
BATCH_ROWS = 1024
MIB = 2**20
SplitCounts = dict[str, dict[str, int]]
"""Rows and other counts by split."""
COUNTS = pa.schema([("split", pa.string()), ("rows", pa.int64()), ("responses", pa.int64()), ("tokens", pa.int64())])


def vm_batch(batch: ProblemBatch, tables: dict[str, StageTable], responses: int) -> pa.Table:
    """Rows of OpenR1-VM for some problems, with all their roll-outs that have a label."""
    labels = batch.read_rows(tables["label"], ["roll_out_id", "roll_in_id", "problem_id", "cut", "label"])
    labels = labels.sort_by([("problem_id", "ascending"), ("roll_out_id", "ascending")])
    labels = first_responses(labels, responses) if responses else labels
    ids = labels["roll_out_id"]
    tokens = align(batch.read_rows(tables["roll_out"], ["roll_out_id", "tokens"]), "roll_out_id", ids)
    answers = align(batch.read_rows(tables["verify"], ["roll_out_id", "answer"]), "roll_out_id", ids)
    columns = ["roll_in_id", "prompt", "tokens"]
    roll_ins = align(batch.read_rows(tables["roll_in"], columns), "roll_in_id", labels["roll_in_id"])
    rows = pa.table(
        {
            "problem_id": labels["problem_id"],
            "given": given_tokens(labels["cut"].to_pylist(), roll_ins),
            "tokens": tokens["tokens"],
            "answer": answers["answer"],
            "label": labels["label"],
        }
    )
    columns = ["problem_id", "problem", "solution", "answer"]
    problems = align(batch.read_rows(tables["clean"], columns), "problem_id", pc.unique(rows["problem_id"]))
    return vm_rows(problems, rows)


def first_responses(labels: pa.Table, responses: int) -> pa.Table:
    """The first `responses` rows of each problem. Problems with fewer rows are left out."""
    counts = labels.group_by("problem_id", use_threads=False).aggregate([([], "count_all")])["count_all"].to_pylist()
    keep = [place < responses <= count for count in counts for place in range(count)]
    return labels.filter(pa.array(keep, pa.bool_()))


def write_vm(recipe: Recipe, folder: AnyPath) -> SplitCounts:
    """Write all shards of OpenR1-VM."""
    tables = {name: stage_table(recipe, name) for name in ("roll_out", *INPUTS)}
    files, limit = ProblemGroups.scan(tables.values()), recipe.export.shard_mib * MIB
    batches_per_task = max(1, int(limit / _bytes_per_row(recipe, tables) / BATCH_ROWS))
    tasks = []
    for split in SPLITS:
        batches = files.batches(BATCH_ROWS, among=problems_of(tables["label"], split))
        for index, start in enumerate(range(0, len(batches), batches_per_task)):
            chunk = batches[start : start + batches_per_task]
            tasks.append({"split": split, "task": index, "batches": [batch._asdict() for batch in chunk]})
    shared: dict[str, Any] = {"tables": tables, "folder": folder, "limit": limit, "responses": recipe.export.responses}
    written = map_items(tasks, partial(write_vm_shards, **shared))
    return _number_and_sum(written.take_all(), folder)


def write_vm_shards(
    item: dict[str, Any], tables: dict[str, StageTable], folder: AnyPath, limit: int, responses: int
) -> pa.Table:
    """Write the batches of one task in one or more shards, with one batch in memory at a time."""
    counts = {"split": item["split"], "rows": 0, "responses": 0, "tokens": 0}
    with ShardWriter(folder / f"{item['split']}-{item['task']:05d}", VM, limit) as writer:
        for batch in item["batches"]:
            rows = vm_batch(ProblemBatch(**batch), tables, responses)
            writer.write(rows)
            counts["rows"] += len(rows)
            counts["responses"] += len(pc.list_flatten(rows["labels"]))
            counts["tokens"] += len(pc.list_flatten(pc.list_flatten(rows["roll_outs_ids"])))
    return pa.Table.from_pylist([counts], schema=COUNTS)


def problems_of(labels: StageTable, split: str) -> pa.Array:
    """The ids of the problems of a split that have a label."""
    batches = labels.dataset().to_batches(columns=["problem_id"], filter=pc.field("split") == split)
    distinct = {problem for batch in batches for problem in pc.unique(batch["problem_id"]).to_pylist()}
    return pa.array(sorted(distinct), pa.string())


def _bytes_per_row(recipe: Recipe, tables: dict[str, StageTable]) -> float:
    """An estimate from file sizes: a response contains its own tokens and a part of its roll-in."""
    sizes = {name: tables[name].count_bytes() for name in ("roll_out", "roll_in")}
    rows = max(tables["roll_out"].count_rows(), 1)
    return max(1.0, (sizes["roll_out"] + sizes["roll_in"] * recipe.roll_out.cuts * 0.6) / rows)


def write_cleaned(recipe: Recipe, folder: AnyPath) -> SplitCounts:
    """Write all shards of OpenR1-Cleaned."""
    clean, limit, counts = stage_table(recipe, "clean"), recipe.export.shard_mib * MIB, []
    for split in SPLITS:
        source, rows = clean.dataset(), 0
        with ShardWriter(folder / f"{split}-00000", CLEANED, limit) as writer:
            for batch in source.to_batches(filter=pc.field("split") == split, batch_size=8192):
                writer.write(cleaned_rows(pa.Table.from_batches([batch])))
                rows += len(batch)
        counts.append({"split": split, "rows": rows})
    return _number_and_sum(counts, folder)


def _number_and_sum(counts: list[dict[str, Any]], folder: AnyPath) -> SplitCounts:
    """Give the shards their final names. Returns the sums over tasks, with the number and the size of the shards."""
    by_split: SplitCounts = {}
    for split in SPLITS:
        shards = number_shards(folder, split)
        if not shards:
            continue
        mine = [row for row in counts if row["split"] == split]
        sums = {key: sum(row[key] for row in mine) for key in COUNTS.names if key != "split" and key in mine[0]}
        by_split[split] = {**sums, "shards": len(shards), "bytes": sum(shards)}
    return by_split


Writer = Callable[[Recipe, AnyPath], SplitCounts]
LAYOUTS: dict[str, Writer] = {"OpenR1-VM": write_vm, "OpenR1-Cleaned": write_cleaned}


def write_layout(recipe: Recipe, folder: AnyPath, write: Writer) -> SplitCounts:
    """Write the shards and the card of one layout.

    Raises:
        UserError: no problem has enough labels.
    """
    remove_folder(folder)  # what an interrupted run has left
    (folder / "data").mkdir(parents=True)
    with ray_session(folder=folder, nodes=recipe.cpu_nodes), progress(folder.name, None, lambda: 0):
        counts = write(recipe, folder / "data")
    if not counts:
        raise UserError(
            f"{folder.name} would be empty: export.responses is {recipe.export.responses}, and no problem of {recipe.folder} has "
            "so many labels: lower it, or pass 0 to write all labels"
        )
    manifests = {name: read_manifest(recipe.stage_folder(name) / "_stage.json") for name in INPUTS}
    card = data_card(folder.name, recipe.folder.name, manifests, counts, recipe.export.license)
    write_atomically(folder / "README.md", card)
    return counts


def run(recipe: Recipe) -> None:
    token = hub_token(recipe)
    stage = open_stage(recipe, "export", inputs=INPUTS)
    if stage is not None:
        counts = {layout: write_layout(recipe, stage.folder / layout, write) for layout, write in LAYOUTS.items()}
        written = counts["OpenR1-VM"].values()
        totals = {key: sum(split[key] for split in written) for key in ("rows", "responses", "tokens")}
        stage.close(**totals, **counts)
    for layout in LAYOUTS:
        folder = recipe.folder / "export" / layout
        print(f"{layout}: {how_to_load(folder)}", flush=True)
        if token:
            upload_dataset(folder, f"{recipe.export.hub}/{recipe.folder.name}-{layout}", token)


def hub_token(recipe: Recipe) -> str:
    """The token from the environment for the upload; empty if nothing is uploaded."""
    token = os.environ.get("HF_TOKEN", "")
    if recipe.export.hub and not token:
        raise UserError(
            f"export.hub is {recipe.export.hub!r}, but HF_TOKEN is not set in the environment; an upload needs a token "
            "with write access: set HF_TOKEN, or leave export.hub out"
        )
    return token if recipe.export.hub else ""


def how_to_load(folder: AnyPath) -> str:
    """The call that reads an exported data set. `load_dataset` takes no URL of a folder."""
    return f'datasets.load_dataset("{folder}")' if is_local(folder) else f'pyarrow.dataset.dataset("{folder}/data")'


def upload_dataset(folder: AnyPath, name: str, token: str) -> None:
    """Upload a dataset to a private repository. From an object store the files are copied here one at a time."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(name, repo_type="dataset", private=True, exist_ok=True)
    if is_local(folder):
        api.upload_folder(repo_id=name, repo_type="dataset", folder_path=str(folder))
    else:
        for file in list_files(folder):
            with temporary_folder() as copy:
                download_folder(folder, copy, [file])
                api.upload_folder(repo_id=name, repo_type="dataset", folder_path=str(copy))
    print(f"uploaded: https://huggingface.co/datasets/{name} (private)", flush=True)


if __name__ == "__main__":
    cli(run, "pipelines.export")
