"""import_vm: a published OpenR1-VM folder -> our tables up to `labels`, so that training can start from it.

python -m pipelines.import_vm vgs --run-name published --import-vm.source FOLDER
python -m pipelines.train vgs --run-name published
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray

from pipelines.checks import check_recipe
from pipelines.recipes import cli
from pipelines.session import progress, ray_session
from pipelines.stage import Stage, UserError, open_stage
from pipelines.tables import Parts, parts_of
from vgs_ray.config import Recipe
from vgs_ray.ids import problem_id
from vgs_ray.openr1 import NEEDED, check_columns, our_tables
from vgs_ray.splits import split_bounds, split_key, splits_of

INPUTS = {
    "clean": (),
    "roll_in": ("clean",),
    "roll_out": ("roll_in",),
    "verify": ("clean", "roll_in", "roll_out"),
    "label": ("clean", "roll_in", "roll_out", "verify"),
}
BATCH_ROWS = 16  # a row has 56 responses of up to 16k tokens
OPTIONAL = ("solution", "source", "processed_answer")


def shards(source: str) -> list[Path]:
    """The Parquet files of a folder, as published or as export writes them."""
    files = sorted(Path(source).glob("**/*.parquet")) if source else []
    if not files:
        raise UserError(
            f"import_vm.source is {source!r} and has no .parquet; it must be the folder of a published data set: run "
            "hf download VGS-AI/OpenR1-VM --repo-type dataset --local-dir FOLDER, then pass --import-vm.source FOLDER"
        )
    for file in files:
        try:
            check_columns(pq.read_schema(file))
        except (ValueError, OSError) as error:
            raise UserError(f"{file} can't be imported: {error}") from error
    return files


def row_groups(files: list[Path], validation: int) -> list[dict[str, Any]]:
    """One task for each row group, with the problems' ids and splits; a problem that comes again gets an id of its own."""
    seen: set[str] = set()
    by_name = any(file.name.startswith("validation") for file in files)
    tasks: list[dict[str, Any]] = []
    for file in files:
        reader = pq.ParquetFile(file)
        for group in range(reader.num_row_groups):
            texts = reader.read_row_group(group, columns=["problem"])["problem"].to_pylist()
            ids = []
            for text in texts:
                identity = problem_id(text)
                while identity in seen:
                    identity = problem_id(f"{identity} again")
                seen.add(identity)
                ids.append(identity)
            named = "validation" if file.name.startswith("validation") else "train"
            tasks.append({"file": str(file), "group": group, "ids": ids, "splits": [named] * len(ids)})
    if not by_name:
        bounds = split_bounds(_keys(seen), validation, 0)
        tasks = [task | {"splits": splits_of(_keys(task["ids"]), bounds).to_pylist()} for task in tasks]
    return tasks


def _keys(ids: Iterable[str]) -> NDArray[np.uint64]:
    return np.array([split_key(identity) for identity in ids], np.uint64)


def import_rows(items: pa.Table, tables: dict[str, Parts]) -> Iterator[pa.Table]:
    """Write the parts of some row groups, a few rows at a time; a retried task writes the same parts again."""
    for item in items.to_pylist():
        reader, start = pq.ParquetFile(item["file"]), 0
        columns = [name for name in (*NEEDED, *OPTIONAL) if name in reader.schema_arrow.names]
        for batch in reader.iter_batches(BATCH_ROWS, row_groups=[item["group"]], columns=columns):
            here = slice(start, start + len(batch))
            found = our_tables(pa.Table.from_batches([batch]), item["ids"][here], item["splits"][here])
            for name, table in found.items():
                tables[name].write(table)
            start += len(batch)
        yield pa.table({"rows": [start]})


def run(recipe: Recipe) -> None:
    check_recipe(recipe)
    source = recipe.import_vm.source
    files = shards(source)
    if (recipe.folder / "clean" / "_stage.json").exists():
        raise UserError(
            f"{recipe.folder} has tables already; an import makes a run of its own: pass --run-name NAME, or remove the folder"
        )
    tables = {name: parts_of(recipe, name) for name in INPUTS}
    recipe.folder.mkdir(parents=True, exist_ok=True)
    with ray_session(folder=recipe.folder):
        for name in INPUTS:
            tables[name].folder.mkdir(parents=True, exist_ok=True)
            for part in tables[name].folder.glob("part-*.parquet"):  # of an interrupted import
                part.unlink()
        tasks = row_groups(files, recipe.clean.validation)
        with progress("import_vm", sum(len(task["ids"]) for task in tasks), tables["clean"].rows):
            items = ray.data.from_items(tasks, override_num_blocks=len(tasks))
            written = items.map_batches(
                import_rows, batch_format="pyarrow", batch_size=None, fn_kwargs={"tables": tables}
            )
            problems = sum(row["rows"] for row in written.take_all())
    for name in INPUTS:
        _opened(recipe, name).close(rows=tables[name].rows(), imported_from=str(Path(source).absolute()))
    print(
        f"imported {problems:,} problems; go on with: python -m pipelines.train {recipe.name} --run-name {recipe.run_name}"
    )


def _opened(recipe: Recipe, name: str) -> Stage:
    """Its configuration is the recipe's, so that later stages accept the table; `imported_from` says what it is."""
    stage = open_stage(recipe, name, INPUTS[name])
    assert stage is not None, "run() made sure that no stage is complete"
    return stage


if __name__ == "__main__":
    cli(run, "pipelines.import_vm")
