"""Tables on disk: a folder of Parquet parts for each, all with the table's schema, read and written by Ray Data.

A part appears by a rename, so it is whole or absent. Its name comes from its rows' ids, so that a retried write replaces
its own part and can't double a row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import ray
from ray.data import Datasink
from ray.data.block import BlockAccessor

from vgs_ray.config import Recipe
from vgs_ray.schemas import TABLES


class Parts(NamedTuple):
    """One table on disk: a folder of parts and the schema that each of them has."""

    folder: Path
    table: str
    key: str

    @property
    def schema(self) -> pa.Schema:
        return TABLES[self.table]

    def files(self) -> list[str]:
        return sorted(str(path) for path in self.folder.glob("part-*.parquet"))

    def rows(self) -> int:
        """Durable rows, from the parts' footers."""
        return sum(pq.read_metadata(file).num_rows for file in self.files())

    def read(self, columns: list[str] | None = None) -> pa.Table:
        files = self.files()
        if not files:
            return self.schema.empty_table().select(columns or self.schema.names)
        return pads.dataset(files, schema=self.schema).to_table(columns=columns)

    def dataset(self, columns: list[str]) -> ray.data.Dataset:
        """Some columns as a Ray data set, read as they are needed."""
        return ray.data.read_parquet(self.files()).select_columns(columns)

    def lookup(self, keys: Iterable[str], columns: list[str], key: str | None = None) -> dict[str, dict[str, Any]]:
        """Rows by key, for a batch of keys; only these rows and columns are held."""
        key = key or self.key
        wanted = pa.array(sorted(set(keys)), pa.string())
        found = pads.dataset(self.files(), schema=self.schema).to_table(
            columns=[key, *columns], filter=pc.field(key).isin(wanted)
        )
        return {row[key]: row for row in found.to_pylist()}

    def write(self, table: pa.Table) -> None:
        """Make rows durable. The name comes from the keys, so that a retried write replaces its own part."""
        if not table.num_rows:
            return
        table = table.select(self.schema.names).cast(self.schema)
        digest = hashlib.blake2b("\n".join(map(str, table[self.key].to_pylist())).encode(), digest_size=8).hexdigest()
        path = self.folder / f"part-{digest}.parquet"
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            pq.write_table(table, beside, compression="zstd")
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


class PartSink(Datasink):
    """Lets Ray Data write the blocks of a data set as durable parts of one table."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def write(self, blocks: Iterable[Any], ctx: Any) -> None:
        for block in blocks:
            self.parts.write(BlockAccessor.for_block(block).to_arrow())


LAYOUT = {
    "clean": ("", "problems", "problem_id"),
    "roll_in": ("", "roll_ins", "roll_in_id"),
    "roll_out": ("", "roll_outs", "roll_out_id"),
    "verify": ("", "verified", "roll_out_id"),
    "label": ("", "labels", "roll_out_id"),
    "evaluate": ("", "searches", "search_id"),
    "dropped": ("clean/problems_dropped", "problems_dropped", "row"),
}


def parts_of(recipe: Recipe, stage: str) -> Parts:
    """Where a stage's table lies."""
    folder, table, key = LAYOUT[stage]
    return Parts(recipe.folder / (folder or stage), table, key)


def done_keys(parts: Parts) -> set[str]:
    """Ids of the durable rows: they are never redone."""
    return set(parts.read([parts.key])[parts.key].to_pylist())


def count_by(parts: Parts, column: str) -> dict[str, int]:
    """How often each value of a column occurs."""
    counts = parts.read([column])[column].value_counts().to_pylist()
    return {str(row["values"]): row["counts"] for row in sorted(counts, key=lambda row: str(row["values"]))}


def write(dataset: ray.data.Dataset, parts: Parts, cpus: float = 0.1) -> None:
    """Run a data set and make each of its blocks durable as it comes."""
    dataset.write_datasink(PartSink(parts), ray_remote_args={"num_cpus": cpus})
