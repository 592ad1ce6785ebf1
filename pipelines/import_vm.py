"""import_vm: a published OpenR1-VM folder -> the tables up to `labels`, so that training can start from it.

python -m pipelines.import_vm vgs --run-name published --import-vm.source FOLDER
python -m pipelines.train vgs --run-name published

FOLDER is a path or a URL.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from obstore.exceptions import BaseError
from upath import UPath

from pipelines.cli import cli
from pipelines.progress import progress
from pipelines.session import ray_session
from pipelines.tables.manifest import read_manifest
from pipelines.tables.sources import readable_source
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import StageTable, stage_table
from pipelines.tables.tasks import map_items
from vgs_ray.config import Recipe
from vgs_ray.config.checks import check_recipe
from vgs_ray.data.files import remove_folder
from vgs_ray.data.ids import problem_id
from vgs_ray.data.openr1 import REQUIRED, check_columns, our_tables
from vgs_ray.data.parquet import parquet_file
from vgs_ray.data.splits import split_bounds, split_key, splits_of
from vgs_ray.data.storage import cause_of, list_files, storage_path
from vgs_ray.errors import UserError

INPUTS = {
    "clean": (),
    "roll_in": ("clean",),
    "roll_out": ("roll_in",),
    "verify": ("clean", "roll_in", "roll_out"),
    "label": ("clean", "roll_in", "roll_out", "verify"),
}
BATCH_ROWS = 16  # a row has 56 responses of up to 16k tokens
OPTIONAL = ("solution", "source", "processed_answer")


def shards(source: str) -> list[UPath]:
    """The Parquet files of a folder in the published layout.

    Raises:
        UserError: the folder has no Parquet files, or a file lacks a column.
    """
    folder = storage_path(source)
    try:
        names = sorted(name for name in list_files(folder) if name.endswith(".parquet")) if source else []
    except BaseError as error:
        raise UserError(f"import_vm.source is {source!r}, which can't be read: {cause_of(error)}") from error
    if not names:
        raise UserError(
            f"import_vm.source is {source!r}, which has no .parquet file; it must be the folder of a published dataset: run "
            "hf download VGS-AI/OpenR1-VM --repo-type dataset --local-dir FOLDER, then pass --import-vm.source FOLDER"
        )
    files = [folder / name for name in names]
    for file in files:
        try:
            check_columns(parquet_file(file).schema_arrow)
        except (ValueError, OSError) as error:
            raise UserError(f"{file} can't be imported: {error}") from error
    return files


def row_groups(files: list[UPath], validation: int) -> list[dict[str, Any]]:
    """A task for each row group, with the ids and splits of its problems. A repeated problem gets an id of its own."""
    seen: set[str] = set()
    by_name = any(file.name.startswith("validation") for file in files)
    tasks: list[dict[str, Any]] = []
    for file in files:
        reader = parquet_file(file)
        for group in range(reader.num_row_groups):
            texts = reader.read_row_group(group, columns=["problem"])["problem"].to_pylist()
            ids = unseen_ids(texts, seen, f"row group {group} of {file}")
            named = "validation" if file.name.startswith("validation") else "train"
            tasks.append({"file": str(file), "group": group, "ids": ids, "splits": [named] * len(ids)})
    if not by_name:
        bounds = split_bounds(_keys(seen), validation, 0)
        tasks = [task | {"splits": splits_of(_keys(task["ids"]), bounds).to_pylist()} for task in tasks]
    return tasks


def unseen_ids(texts: list[Any], seen: set[str], place: str) -> list[str]:
    """An id for each problem that is not in `seen`, and add it there.

    Raises:
        UserError: a problem is null or empty. `place` names its row group.
    """
    ids = []
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f"{place}: row {row} can't be used: its problem is {text!r}, but it must be a text. Correct this row or remove "
                "it from the file"
            )
        identity = problem_id(text)
        while identity in seen:
            identity = problem_id(f"{identity} again")
        seen.add(identity)
        ids.append(identity)
    return ids


def _keys(ids: Iterable[str]) -> NDArray[np.uint64]:
    return np.array([split_key(identity) for identity in ids], np.uint64)


def import_row_group(item: dict[str, Any], tables: dict[str, StageTable]) -> pa.Table:
    """Write the parts of one row group, a few rows at a time. A retried task writes the same parts again."""
    reader, start = parquet_file(storage_path(item["file"])), 0
    columns = [name for name in (*REQUIRED, *OPTIONAL) if name in reader.schema_arrow.names]
    for batch in reader.iter_batches(BATCH_ROWS, row_groups=[item["group"]], columns=columns):
        here = slice(start, start + len(batch))
        try:
            rows_by_table = our_tables(pa.Table.from_batches([batch]), item["ids"][here], item["splits"][here], start)
        except ValueError as error:
            raise UserError(f"row group {item['group']} of {item['file']}: {error}") from error
        for name, rows in rows_by_table.items():
            tables[name].write_part(rows)
        start += len(batch)
    return pa.table({"rows": [start]})


def run(recipe: Recipe) -> None:
    check_recipe(recipe)
    source = str(storage_path(recipe.import_vm.source).absolute())
    files = shards(recipe.import_vm.source)
    tables = {name: stage_table(recipe, name) for name in INPUTS}
    if not _is_written(recipe, source):
        _write(files, recipe, tables)
    for name in INPUTS:
        # The manifest has the recipe's configuration, so that later stages accept the table.
        stage = open_stage(recipe, name, INPUTS[name])
        if stage is not None:
            with ray_session(folder=stage.folder, nodes=stage.nodes):
                table = stage.publish(tables[name])
            stage.close(rows=table.count_rows(), imported_from=source)
    print(
        f"imported {tables['clean'].count_rows():,} problems; continue with: python -m pipelines.train {recipe.name} "
        f"--run-name {recipe.run_name}"
    )


def _is_written(recipe: Recipe, source: str) -> bool:
    """Whether an interrupted import of this source has written all rows, which is so if it has written a manifest.

    Raises:
        UserError: the import is complete, or the tables have another origin.
    """
    manifests = [recipe.folder / name / "_stage.json" for name in INPUTS]
    origins = [read_manifest(path)["counts"].get("imported_from") for path in manifests if path.exists()]
    if len(origins) == len(INPUTS) or {*origins} - {source}:
        raise UserError(
            f"{recipe.folder} has tables already; an import needs a new run: pass --run-name NAME, or remove the folder"
        )
    return bool(origins)


def _write(files: list[UPath], recipe: Recipe, tables: dict[str, StageTable]) -> None:
    """Write the rows of all tables. They replace the rows of an interrupted import."""
    tasks = row_groups(files, recipe.clean.validation)
    total = sum(len(task["ids"]) for task in tasks)
    if not total:
        raise UserError(f"{files[0].parent} has no rows to import: check --import-vm.source")
    claimed = {}
    for name, table in tables.items():
        remove_folder(table.folder)
        table.folder.mkdir(parents=True)
        claimed[name] = table.claim()
    with (
        ray_session(folder=recipe.folder, nodes=recipe.cpu_nodes),
        readable_source(),
        progress("import_vm", total, tables["clean"].count_rows),
    ):
        map_items(tasks, partial(import_row_group, tables=claimed)).materialize()


if __name__ == "__main__":
    cli(run, "pipelines.import_vm")
