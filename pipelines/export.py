"""export: finished tables -> `export/OpenR1-VM` and `export/OpenR1-Cleaned`, Parquet shards with a card, as published.

`datasets.load_dataset(FOLDER)` opens either. With `--export.hub NAME` they are pushed to that account.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from pipelines.cli import cli
from pipelines.session import progress, ray_session
from pipelines.tables.by_problem import ProblemBatch, ProblemFiles, align
from pipelines.tables.manifest import read_manifest
from pipelines.tables.shards import ShardWriter, number_shards
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import StageTable, stage_table
from pipelines.tables.tasks import map_items
from vgs_ray.config import Recipe
from vgs_ray.data.cards import data_card
from vgs_ray.data.openr1 import CLEANED, VM, cleaned_rows, given_tokens, vm_rows
from vgs_ray.errors import UserError

INPUTS = ("clean", "roll_in", "roll_out", "verify", "label")
SPLITS = ("train", "validation", "test")  # of the last, problems alone
BATCH_ROWS = 1024
MIB = 2**20
COUNTS = pa.schema([("split", pa.string()), ("rows", pa.int64()), ("responses", pa.int64()), ("tokens", pa.int64())])


def vm_batch(batch: ProblemBatch, tables: dict[str, StageTable], responses: int) -> pa.Table:
    """Rows of OpenR1-VM for some problems: those of their roll-outs that have a label."""
    labels = batch.read_rows(tables["label"], ["roll_out_id", "roll_in_id", "problem_id", "cut", "label"])
    labels = labels.sort_by([("problem_id", "ascending"), ("roll_out_id", "ascending")])
    labels = of_size(labels, responses) if responses else labels
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


def of_size(labels: pa.Table, responses: int) -> pa.Table:
    """The first `responses` rows of each problem that has so many."""
    counts = labels.group_by("problem_id", use_threads=False).aggregate([([], "count_all")])["count_all"].to_pylist()
    keep = [place < responses <= count for count in counts for place in range(count)]
    return labels.filter(pa.array(keep, pa.bool_()))


def write_vm(recipe: Recipe, folder: Path) -> dict[str, dict[str, int]]:
    """All shards of OpenR1-VM; counts by split."""
    tables = {
        name: stage_table(recipe, name) for name in ("roll_out", *(name for name in INPUTS if name != "roll_out"))
    }
    places, limit = ProblemFiles.scan(tables.values()), recipe.export.shard_mib * MIB
    batches_a_task = max(1, int(limit / _bytes_a_row(recipe, tables) / BATCH_ROWS))
    tasks = []
    for split in SPLITS:
        batches = places.batches(BATCH_ROWS, among=problems_of(tables["label"], split))
        for index in range(math.ceil(len(batches) / batches_a_task)):
            chunk = batches[index * batches_a_task : (index + 1) * batches_a_task]
            tasks.append({"split": split, "task": index, "batches": [batch._asdict() for batch in chunk]})
    shared: dict[str, Any] = {"tables": tables, "folder": folder, "limit": limit, "responses": recipe.export.responses}
    written = map_items(tasks, partial(write_vm_shards, **shared))
    return _by_split(written.take_all(), folder)


def write_vm_shards(
    item: dict[str, Any], tables: dict[str, StageTable], folder: Path, limit: int, responses: int
) -> pa.Table:
    """One task's batches, in one shard or more; memory is bounded by a batch."""
    found = {"split": item["split"], "rows": 0, "responses": 0, "tokens": 0}
    with ShardWriter(folder / f"{item['split']}-{item['task']:05d}", VM, limit) as writer:
        for batch in item["batches"]:
            rows = vm_batch(ProblemBatch(**batch), tables, responses)
            writer.write(rows)
            found["rows"] += len(rows)
            found["responses"] += len(pc.list_flatten(rows["labels"]))
            found["tokens"] += len(pc.list_flatten(pc.list_flatten(rows["roll_outs_ids"])))
    return pa.Table.from_pylist([found], schema=COUNTS)


def problems_of(labels: StageTable, split: str) -> pa.Array:
    """The distinct problems of a split; read part by part."""
    chosen = pads.dataset(labels.part_files(), schema=labels.schema).to_batches(
        columns=["problem_id"], filter=pc.field("split") == split
    )
    distinct = {problem for batch in chosen for problem in pc.unique(batch["problem_id"]).to_pylist()}
    return pa.array(sorted(distinct), pa.string())


def _bytes_a_row(recipe: Recipe, tables: dict[str, StageTable]) -> float:
    """A guess from the parts' sizes: a response holds its own tokens and a part of its roll-in's."""
    sizes = {name: sum(os.path.getsize(file) for file in tables[name].part_files()) for name in ("roll_out", "roll_in")}
    rows = max(tables["roll_out"].count_rows(), 1)
    return max(1.0, (sizes["roll_out"] + sizes["roll_in"] * recipe.roll_out.cuts * 0.6) / rows)


def write_cleaned(recipe: Recipe, folder: Path) -> dict[str, dict[str, int]]:
    """All shards of OpenR1-Cleaned; problems stream through."""
    clean, limit, counts = stage_table(recipe, "clean"), recipe.export.shard_mib * MIB, []
    for split in SPLITS:
        source = pads.dataset(clean.part_files(), schema=clean.schema)
        rows = 0
        with ShardWriter(folder / f"{split}-00000", CLEANED, limit) as writer:
            for batch in source.to_batches(filter=pc.field("split") == split, batch_size=8192):
                writer.write(cleaned_rows(pa.Table.from_batches([batch])))
                rows += len(batch)
        counts.append({"split": split, "rows": rows})
    return _by_split(counts, folder)


def _by_split(counts: list[dict[str, Any]], folder: Path) -> dict[str, dict[str, int]]:
    """Sums over tasks, with the number and the size of the shards, which get their final names."""
    found: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        shards = number_shards(folder, split)
        if not shards:
            continue
        mine = [row for row in counts if row["split"] == split]
        sums = {key: sum(row[key] for row in mine) for key in COUNTS.names if key != "split" and key in mine[0]}
        found[split] = {**sums, "shards": len(shards), "bytes": sum(path.stat().st_size for path in shards)}
    return found


LAYOUTS: dict[str, Callable[[Recipe, Path], dict[str, dict[str, int]]]] = {
    "OpenR1-VM": write_vm,
    "OpenR1-Cleaned": write_cleaned,
}


def export(recipe: Recipe, folder: Path, write: Callable[[Recipe, Path], dict[str, dict[str, int]]]) -> dict[str, Any]:
    """Write one layout: its shards and its card; counts by split."""
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted run
    (folder / "data").mkdir(parents=True)
    with ray_session(folder=folder), progress(folder.name, None, lambda: 0):
        counts = write(recipe, folder / "data")
    if not counts:
        raise UserError(
            f"no row of {recipe.folder} fits into {folder.name}; export.responses is {recipe.export.responses}, and a problem "
            "needs so many labels: lower it, or set 0 to write what there is"
        )
    manifests = {name: read_manifest(recipe.folder / name / "_stage.json") for name in INPUTS}
    card = data_card(folder.name, recipe.folder.name, manifests, counts, recipe.export.license)
    (folder / "README.md").write_text(card)
    return counts


def run(recipe: Recipe) -> None:
    token = hub_token(recipe)
    unpushed = replace(recipe, export=replace(recipe.export, hub=""))  # a finished export may be pushed later
    stage = open_stage(unpushed, "export", inputs=INPUTS)
    if stage is not None:
        counts = {layout: export(recipe, stage.folder / layout, write) for layout, write in LAYOUTS.items()}
        written = counts["OpenR1-VM"].values()
        totals = {key: sum(found[key] for found in written) for key in ("rows", "responses", "tokens")}
        stage.close(**totals, **counts)
    for layout in LAYOUTS:
        folder = recipe.folder / "export" / layout
        print(f'{layout}: datasets.load_dataset("{folder}")', flush=True)
        if token:
            push(folder, f"{recipe.export.hub}/{recipe.folder.name}-{layout}", token)


def hub_token(recipe: Recipe) -> str:
    """The token to push with; empty where nothing is pushed. It comes from the environment alone."""
    token = os.environ.get("HF_TOKEN", "")
    if recipe.export.hub and not token:
        raise UserError(
            f"export.hub is {recipe.export.hub!r}, but HF_TOKEN is not set in the environment; pushing needs a token with "
            "write access: export HF_TOKEN=..., or leave export.hub out"
        )
    return token if recipe.export.hub else ""


def push(folder: Path, name: str, token: str) -> None:
    """Upload one data set; it is private until its owner says otherwise."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(name, repo_type="dataset", private=True, exist_ok=True)
    api.upload_folder(repo_id=name, repo_type="dataset", folder_path=str(folder))
    print(f"pushed: https://huggingface.co/datasets/{name} (private)", flush=True)


if __name__ == "__main__":
    cli(run, "pipelines.export")
