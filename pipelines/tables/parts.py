"""Tables on disk: a folder of Parquet parts for each, all with the table's schema, read and written by Ray Data.

A part appears by a rename, so it is whole or absent. Its name comes from its rows' ids, so that a retried write replaces
its own part and can't double a row. A part `part-A.B.parquet` is a piece of `part-A.parquet` and counts until that exists.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import ray
from ray.data import Datasink
from ray.data.block import BlockAccessor

from pipelines.tables.key_index import KeyIndex
from vgs_ray.config import Recipe
from vgs_ray.data.schemas import TABLES
from vgs_ray.errors import UserError


class Displaced(RuntimeError):
    """Another command writes this table now, so what this process still writes would double its rows."""


class Parts(NamedTuple):
    """One table on disk: a folder of parts and the schema that each of them has.

    Attributes:
        folder, table, key: where it is, its name among the schemas, its unique column.
        writer: who may write; empty lets anybody.
    """

    folder: Path
    table: str
    key: str
    writer: str = ""

    @property
    def schema(self) -> pa.Schema:
        return TABLES[self.table]

    def claim(self) -> Parts:
        """Become the only writer. Workers of a killed command may live on for a moment; their writes now fail."""
        writer = uuid.uuid4().hex
        (self.folder / WRITER).write_text(writer)
        return self._replace(writer=writer)

    def files(self) -> list[str]:
        names = {path.name for path in self.folder.glob("part-*.parquet")}
        return sorted(str(self.folder / name) for name in names if _whole(name) == name or _whole(name) not in names)

    def path(self, name: str) -> Path:
        return self.folder / f"part-{name}.parquet"

    def open(self, file: Path) -> pa.Table:
        """One part."""
        return pads.dataset(file, schema=self.schema).to_table()

    def rows(self) -> int:
        """Durable rows, from the parts' footers."""
        while True:
            try:
                return sum(map(_rows_of, self.files()))
            except FileNotFoundError:  # its pieces became a part in between
                continue

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

    def write(self, table: pa.Table, name: str = "") -> None:
        """Make rows durable. The name comes from the keys, so that a retried write replaces its own part.

        Raises:
            Displaced: another writer has claimed the table.
        """
        if not table.num_rows:
            return
        table = table.select(self.schema.names).cast(self.schema)
        path = self.path(name or digest(table[self.key].to_pylist()))
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            pq.write_table(table, beside, compression="zstd")
            if self.writer and (self.folder / WRITER).read_text() != self.writer:
                raise Displaced(f"{self.folder} has another writer now; this one stops: nothing is lost")
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


WRITER = "_writer"


def digest(keys: Sequence[object]) -> str:
    """A name for a set of rows in an order."""
    return hashlib.blake2b("\n".join(map(str, keys)).encode(), digest_size=8).hexdigest()


def _whole(name: str) -> str:
    """The part that a piece belongs to; a part's own name for a part."""
    return f"{name.removesuffix('.parquet').partition('.')[0]}.parquet"


_INDEXES: dict[tuple[Path, str], KeyIndex] = {}  # one for each table and process: parts don't change


@cache
def _rows_of(file: str) -> int:
    """Rows of a part. Its name comes from its keys, so the count of one name never changes."""
    return int(metadata_of(file).num_rows)


def metadata_of(file: str) -> pq.FileMetaData:
    """A part's footer.

    Raises:
        UserError: the file is damaged: parts appear whole, so a disk or a copy did it.
    """
    try:
        return pq.read_metadata(file)
    except pa.ArrowInvalid as error:
        raise UserError(
            f"{file} is damaged ({(str(error).splitlines() or [''])[0]}); a part is a whole Parquet file: put it back, or "
            "remove it and its stage's _stage.json, and run the stage again, which makes the missing rows"
        ) from error


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


def done_keys(parts: Parts) -> pa.Array:
    """Ids of the durable rows: they are never redone."""
    return parts.read([parts.key])[parts.key].combine_chunks()


def without(batch: pa.Table, key: str, done: pa.Array) -> pa.Table:
    """The rows that are not durable yet."""
    return batch.filter(pc.invert(pc.is_in(batch[key], value_set=done)))


def count_by(parts: Parts, column: str) -> dict[str, int]:
    """How often each value of a column occurs."""
    counts = parts.read([column])[column].value_counts().to_pylist()
    return {str(row["values"]): row["counts"] for row in sorted(counts, key=lambda row: str(row["values"]))}


def write(dataset: ray.data.Dataset, parts: Parts, cpus: float = 0.1) -> None:
    """Run a data set and make each of its blocks durable as it comes."""
    dataset.write_datasink(PartSink(parts), ray_remote_args={"num_cpus": cpus})
