"""Tables on disk: a folder of Parquet parts for each, all with the table's schema, read and written by Ray Data.

A part appears by a rename, so it is whole or absent. Its name comes from its rows' ids, so that a retried write replaces
its own part and can't double a row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
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
        return sum(map(_rows_of, self.files()))

    def read(self, columns: list[str] | None = None) -> pa.Table:
        files = self.files()
        if not files:
            return self.schema.empty_table().select(columns or self.schema.names)
        return pads.dataset(files, schema=self.schema).to_table(columns=columns)

    def dataset(self, columns: list[str]) -> ray.data.Dataset:
        """Some columns as a Ray data set, read as they are needed."""
        return ray.data.read_parquet(self.files()).select_columns(columns)

    def lookup(self, keys: Iterable[str], columns: list[str], key: str | None = None) -> dict[str, dict[str, Any]]:
        """Rows by key, for a batch of keys; only the parts that hold them are opened, only these rows and columns held."""
        key, wanted = key or self.key, sorted(set(keys))
        files = self._files_with(key, wanted)
        if not files:
            return {}
        found = pads.dataset(files, schema=self.schema).to_table(
            columns=[key, *columns], filter=pc.field(key).isin(pa.array(wanted, pa.string()))
        )
        return {row[key]: row for row in found.to_pylist()}

    def _files_with(self, key: str, wanted: list[str]) -> list[str]:
        """The parts that hold some keys. A key that is not known yet may lie in a part that came since."""
        index = _INDEXES.get((self.folder, key))
        if index is None or not index.has(wanted):
            index = _INDEXES[self.folder, key] = KeyIndex(self.files(), key, index)
        return index.files_with(wanted)

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


class KeyIndex:
    """Which part holds a key, at 20 bytes a row: a lookup must not open every part for every batch."""

    def __init__(self, files: list[str], key: str, before: KeyIndex | None = None) -> None:
        known: dict[str, np.ndarray] = before.parts if before else {}
        self.files = files
        self.parts: dict[str, np.ndarray] = {
            file: known[file] if file in known else _hashes(file, key) for file in files
        }
        hashes = np.concatenate([np.empty(0, np.int64), *self.parts.values()])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        sizes = [len(part) for part in self.parts.values()]
        self._file = np.repeat(np.arange(len(files), dtype=np.int32), sizes)[order]

    def has(self, keys: list[str]) -> bool:
        begin, end = self._ranges(keys)
        return bool((begin < end).all())

    def files_with(self, keys: list[str]) -> list[str]:
        """Parts with one of the keys (or, in rare cases, with a key of the same hash)."""
        spans = zip(*self._ranges(keys), strict=True)
        return [self.files[code] for code in sorted({int(c) for begin, end in spans for c in self._file[begin:end]})]

    def _ranges(self, keys: list[str]) -> tuple[np.ndarray, np.ndarray]:
        wanted = np.fromiter(map(hash, keys), np.int64, len(keys))
        return np.searchsorted(self._hashes, wanted, "left"), np.searchsorted(self._hashes, wanted, "right")


def _hashes(file: str, key: str) -> np.ndarray:
    keys = pq.read_table(file, columns=[key])[key]
    return np.fromiter(map(hash, keys.to_pylist()), np.int64, len(keys))


_INDEXES: dict[tuple[Path, str], KeyIndex] = {}  # one for each table and process: parts don't change


@cache
def _rows_of(file: str) -> int:
    """Rows of a part. Its name comes from its keys, so the count of one name never changes."""
    return int(pq.read_metadata(file).num_rows)


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
