"""The table that a stage writes: a folder of Parquet parts, `{root}/{run_name}/{stage}/part-*.parquet`, with one schema.

A part is renamed into place, so it is whole or absent, and its rows are committed from then on. The name of a part is
derived from the ids of its rows, so a retried write replaces its own part and cannot duplicate a row. A file
`part-A.B.parquet` is a piece of `part-A.parquet`: readers ignore it once `part-A.parquet` exists.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Sequence
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

from vgs_ray.config import Recipe
from vgs_ray.data.files import atomic_file, write_atomically
from vgs_ray.data.schemas import TABLES
from vgs_ray.errors import UserError

WRITER = "_writer"


class Displaced(RuntimeError):
    """Another command now writes this table; a write by this process could duplicate rows."""


class StageTable(NamedTuple):
    """One table on disk.

    Attributes:
        folder: folder of the parts.
        name: name of the schema in `TABLES`.
        key: column with a unique id for each row.
        writer: token of the only process that may write; empty if any process may.
        earlier: folders of the same table in earlier runs, whose rows are read too.
    """

    folder: Path
    name: str
    key: str
    writer: str = ""
    earlier: tuple[Path, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        return TABLES[self.name]

    def claim(self) -> StageTable:
        """Become the only writer. Workers that outlive a killed command then fail when they write."""
        writer = uuid.uuid4().hex
        write_atomically(self.folder / WRITER, writer)
        return self._replace(writer=writer)

    def part_files(self) -> list[str]:
        """Paths of the parts, and of the pieces whose part does not exist yet."""
        return [file for folder in (self.folder, *self.earlier) for file in _parts_in(folder)]

    def part_path(self, name: str) -> Path:
        return self.folder / f"part-{name}.parquet"

    def read_part(self, file: Path) -> pa.Table:
        return pads.dataset(file, schema=self.schema).to_table()

    def count_rows(self) -> int:
        """Committed rows, from the footers of the parts."""
        while True:
            try:
                return sum(map(_rows_in, self.part_files()))
            except FileNotFoundError:  # pieces were merged into their part in between
                continue

    def read(self, columns: list[str] | None = None) -> pa.Table:
        while files := self.part_files():
            try:
                return pads.dataset(files, schema=self.schema).to_table(columns=columns)
            except FileNotFoundError:  # pieces were merged into their part in between
                continue
        return self.schema.empty_table().select(columns or self.schema.names)

    def ray_dataset(self, columns: list[str]) -> ray.data.Dataset:
        """Some columns as a Ray dataset, read lazily."""
        return ray.data.read_parquet(self.part_files()).select_columns(columns)

    def write_part(self, rows: pa.Table, name: str = "") -> None:
        """Commit rows as one part.

        Args:
            rows: columns of the schema, in any order; an empty table writes nothing.
            name: name of the part; by default derived from the ids.

        Raises:
            Displaced: another process has claimed the table.
        """
        if not rows.num_rows:
            return
        rows = rows.select(self.schema.names).cast(self.schema)
        path = self.part_path(name or part_name(rows[self.key].to_pylist()))
        with atomic_file(path, self._check_writer) as temporary:
            pq.write_table(rows, temporary, compression="zstd")

    def _check_writer(self) -> None:
        if self.writer and (self.folder / WRITER).read_text() != self.writer:
            raise Displaced(
                f"another command now writes {self.folder}; this process stops, and no committed row is lost"
            )


def part_name(ids: Sequence[object]) -> str:
    """A name for a part with these ids in this order."""
    return hashlib.blake2b("\n".join(map(str, ids)).encode(), digest_size=8).hexdigest()


def _parts_in(folder: Path) -> list[str]:
    names = {path.name for path in folder.glob("part-*.parquet")}
    return sorted(str(folder / name) for name in names if _part_of(name) == name or _part_of(name) not in names)


def _part_of(name: str) -> str:
    """The file name of the part that a piece belongs to; a part belongs to itself."""
    return f"{name.removesuffix('.parquet').partition('.')[0]}.parquet"


@cache
def _rows_in(file: str) -> int:
    """Rows of a part. The name is derived from the ids, so the count for a name never changes."""
    return int(read_footer(file).num_rows)


def read_footer(file: str) -> pq.FileMetaData:
    """The Parquet metadata of a part.

    Raises:
        UserError: the file is damaged. Parts are renamed into place whole, so the disk or a copy damaged it.
    """
    try:
        return pq.read_metadata(file)
    except pa.ArrowInvalid as error:
        raise UserError(
            f"{file} is damaged ({(str(error).splitlines() or [''])[0]}); a part must be a whole Parquet file: restore it, or "
            "remove it and _stage.json in its folder and run the stage again, which generates the missing rows"
        ) from error


LAYOUT = {
    "clean": ("", "problems", "problem_id"),
    "roll_in": ("", "roll_ins", "roll_in_id"),
    "roll_out": ("", "roll_outs", "roll_out_id"),
    "verify": ("", "verified", "roll_out_id"),
    "label": ("", "labels", "roll_out_id"),
    "trees": ("", "trees", "tree_id"),
    "pairs": ("", "pairs", "pair_id"),
    "evaluate": ("", "searches", "search_id"),
    "dropped": ("clean/problems_dropped", "problems_dropped", "row"),
    "unpaired": ("pairs/unpaired_trees", "unpaired_trees", "tree_id"),
}
"""Folder (by default the stage's name), schema and id column of the table of each stage."""


def stage_table(recipe: Recipe, stage: str) -> StageTable:
    """The table of a stage."""
    folder, name, key = LAYOUT[stage]
    first, *rest = (folder or stage).split("/")
    return StageTable(recipe.stage_folder(first).joinpath(*rest), name, key)


def all_rows(recipe: Recipe, stage: str) -> StageTable:
    """The table of a stage together with those of `recipe.earlier_runs`, to read. No id is in two of them."""
    folders = tuple(recipe.of_run(run).stage_folder(stage) for run in recipe.earlier_runs)
    return stage_table(recipe, stage)._replace(earlier=folders)


def committed_ids(table: StageTable) -> pa.Array:
    """Ids of the committed rows, which a restarted stage skips."""
    return table.read([table.key])[table.key].combine_chunks()


def drop_committed(rows: pa.Table, key: str, committed: pa.Array) -> pa.Table:
    """The rows whose ids are not committed yet."""
    return rows.filter(pc.invert(pc.is_in(rows[key], value_set=committed)))


def value_counts(table: StageTable, column: str) -> dict[str, int]:
    """How often each value of a column occurs."""
    counts = table.read([column])[column].value_counts().to_pylist()
    return {str(row["values"]): row["counts"] for row in sorted(counts, key=lambda row: str(row["values"]))}


class _CommitBlocks(Datasink):
    def __init__(self, commit: Callable[[pa.Table], None]) -> None:
        self.commit = commit

    def write(self, blocks: Iterable[Any], ctx: Any) -> None:
        for block in blocks:
            self.commit(BlockAccessor.for_block(block).to_arrow())


def write_dataset(dataset: ray.data.Dataset, commit: Callable[[pa.Table], None]) -> None:
    """Run a Ray dataset, and call `commit` in a task for each block when it is ready."""
    dataset.write_datasink(_CommitBlocks(commit), ray_remote_args={"num_cpus": 0.1})
