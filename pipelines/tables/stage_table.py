"""The table that a stage writes: Parquet files with one schema, in `{root}/{run_name}/{stage}/`.

While the stage runs, its rows are in parts (`pipelines.tables.parts`). When it ends, they are published: `publish` copies them to
few large files, and the manifest `_stage.json` names these. Readers take the files of the manifest if there is one, else
the parts.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import ray
from upath import UPath

from pipelines.tables import parts
from pipelines.tables.manifest import read_manifest
from vgs_ray.config import Recipe
from vgs_ray.data.failpoints import failpoint
from vgs_ray.data.files import atomic_file, make_folder, read_if_exists, write_atomically
from vgs_ray.data.parquet import arrow_file, parquet_dataset, parquet_file, retried
from vgs_ray.data.schemas import TABLES
from vgs_ray.data.storage import storage_path
from vgs_ray.errors import UserError

MANIFEST = "_stage.json"
WRITER = "_writer"


class Displaced(RuntimeError):
    """Another command now writes this table; this process stops."""


class RowGroup(NamedTuple):
    """A row group of a file; `file` is a path or a URL."""

    file: str
    number: int


class StageTable(NamedTuple):
    """One table in storage.

    Attributes:
        stage: folder of the stage.
        subfolder: folder of the table in it; empty if it is the same.
        name: name of the schema in `TABLES`.
        key: column with a unique id for each row.
        writer: token of the only process that may write; empty if any process may.
        earlier: the same table in earlier runs, whose rows are read too.
        published: the files, if they are written and not yet in the manifest.
    """

    stage: UPath
    subfolder: str
    name: str
    key: str
    writer: str = ""
    earlier: tuple[StageTable, ...] = ()
    published: tuple[dict[str, Any], ...] = ()

    @property
    def schema(self) -> pa.Schema:
        return TABLES[self.name]

    @property
    def folder(self) -> UPath:
        return self.stage / self.subfolder if self.subfolder else self.stage

    @property
    def parts_folder(self) -> UPath:
        return self.folder / parts.FOLDER

    def part_path(self, name: str) -> UPath:
        return self.parts_folder / f"{name}{parts.SUFFIX}"

    def claim(self) -> StageTable:
        """Become the only writer. Processes that outlive a killed command then fail when they write.

        Raises:
            Displaced: this was the writer, and another process has claimed the table since.
        """
        self.check_writer()
        writer = uuid.uuid4().hex
        make_folder(self.folder)
        write_atomically(self.folder / WRITER, writer)
        return self._replace(writer=writer)

    def published_files(self) -> tuple[dict[str, Any], ...] | None:
        """The files of a published table: `file`, relative to the folder of the stage, `rows` and `bytes`; else None."""
        if self.published:
            return self.published
        try:
            manifest = read_manifest(self.stage / MANIFEST)
        except FileNotFoundError:
            return None
        return tuple(manifest["tables"].get(self.name, ()))

    def own_files(self) -> list[UPath]:
        """The files of this table, without those of earlier runs."""
        files = self.published_files()
        if files is not None:
            return [self.stage / entry["file"] for entry in files]
        return [self.part_path(part.name) for part in parts.list_parts(self.parts_folder)]

    def files(self) -> list[UPath]:
        """All files with rows of this table."""
        return [file for table in (self, *self.earlier) for file in table.own_files()]

    def count_rows(self) -> int:
        """Committed rows, from one listing. While actors work, rows that they merge during the call may be missing."""
        return sum(rows for rows, _ in self._sizes())

    def count_bytes(self) -> int:
        """Size of all files."""
        return sum(size for _, size in self._sizes())

    def _sizes(self) -> Iterator[tuple[int, int]]:
        """Rows and bytes of each file."""
        for table in (self, *self.earlier):
            files = table.published_files()
            if files is not None:
                yield from ((entry["rows"], entry["bytes"]) for entry in files)
            else:
                yield from ((part.rows, part.size) for part in parts.list_parts(table.parts_folder, merging=False))

    def dataset(self, files: list[UPath] | None = None) -> pads.Dataset:
        """All rows, or those of some files, to scan."""
        chosen = self.files() if files is None else files
        return parquet_dataset(chosen, self.schema) if chosen else pads.dataset(self.schema.empty_table())

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """All rows.

        Raises:
            FileNotFoundError: a file that the manifest names is gone.
        """
        files = self.files()
        while True:
            try:
                return retried(partial(self.dataset(files).to_table, columns=columns))
            except FileNotFoundError:  # pieces were merged into their part in between
                before, files = files, self.files()
                if files == before:
                    raise

    def row_groups(self) -> list[RowGroup]:
        """The row groups of all files."""
        counts = ((str(file), open_file(file).num_row_groups) for file in self.files())
        return [RowGroup(file, number) for file, count in counts for number in range(count)]

    def read_groups(self, groups: Iterable[Mapping[str, Any]], columns: list[str]) -> pa.Table:
        """Some columns of some row groups, given as dicts."""
        indices: dict[str, list[int]] = {}
        for group in groups:
            indices.setdefault(group["file"], []).append(group["number"])
        empty = self.schema.empty_table().select(columns)
        read = [open_file(storage_path(file)).read_row_groups(some, columns) for file, some in indices.items()]
        return pa.concat_tables([empty, *(table.select(columns).cast(empty.schema) for table in read)])

    def rows_with(self, ids: Iterable[str], columns: list[str]) -> pa.Table:
        """Some columns of the rows with these ids. Of row groups without any of them, only the ids are read."""
        wanted, found = pa.array(sorted(set(ids)), pa.string()), [self.schema.empty_table().select(columns)]
        for file in map(open_file, self.files()):
            matches = pc.indices_nonzero(pc.is_in(file.read([self.key])[self.key], value_set=wanted)).to_numpy()
            sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
            groups = np.unique(np.searchsorted(np.cumsum(sizes), matches, side="right")).tolist()
            if groups:
                rows = file.read_row_groups(groups, list(dict.fromkeys([*columns, self.key])))
                found.append(rows.filter(pc.is_in(rows[self.key], value_set=wanted)).select(columns))
        return pa.concat_tables([table.cast(found[0].schema) for table in found])

    def ray_dataset(self, columns: list[str]) -> ray.data.Dataset:
        """Some columns as a Ray dataset, read lazily."""
        files = [arrow_file(file) for file in self.files()]
        if not files:
            return ray.data.from_arrow(self.schema.empty_table().select(columns))
        read = ray.data.read_parquet([path for _, path in files], filesystem=files[0][0])
        return read.select_columns(columns)

    def in_order(self, columns: list[str]) -> ray.data.MaterializedDataset:
        """Some columns in the order of the ids, in Ray's object store.

        A stage that works through problems in this order commits the rows of neighbouring problems together, so that later stages
        find those of a problem in few row groups.
        """
        return self.ray_dataset(columns).sort(self.key).materialize()

    def write_part(self, rows: pa.Table, name: str = "") -> None:
        """Commit rows as one part.

        Args:
            rows: columns of the schema, in any order; an empty table writes nothing.
            name: name of the part; by default that of the ids.

        Raises:
            Displaced: another process has claimed the table.
        """
        if not rows.num_rows:
            return
        rows = rows.select(self.schema.names).cast(self.schema)
        path = self.part_path(name or parts.part_name(rows[self.key].to_pylist()))
        failpoint("part.before")
        make_folder(path.parent)
        with atomic_file(path, self.check_writer) as temporary:
            pq.write_table(rows, temporary, compression="zstd")
        failpoint("part.after")

    def check_writer(self) -> None:
        """Check that this process may write.

        Raises:
            Displaced: another process has claimed the table.
        """
        if self.writer and read_if_exists(self.folder / WRITER) != self.writer:
            raise Displaced(
                f"another command now writes {self.folder}; this process stops, and no committed row is lost"
            )


def open_file(path: UPath) -> pq.ParquetFile:
    """A Parquet file.

    Raises:
        UserError: it is damaged. Files are written whole, so the disk or a copy damaged it.
    """
    try:
        return parquet_file(path)
    except pa.ArrowInvalid as error:
        raise UserError(
            f"{path} is damaged ({(str(error).splitlines() or [''])[0]}); it must be a whole Parquet file: restore it, or remove "
            f"it and {MANIFEST} in the folder of the stage and run the stage again, which generates the missing rows"
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
    "value_paths": ("pairs/value_paths", "value_paths", "path_id"),
}
"""Folder (by default the stage's name), schema and id column of the table of each stage."""


def stage_table(recipe: Recipe, stage: str) -> StageTable:
    """The table of a stage."""
    folder, name, key = LAYOUT[stage]
    first, _, subfolder = (folder or stage).partition("/")
    return StageTable(recipe.stage_folder(first), subfolder, name, key)


def all_rows(recipe: Recipe, stage: str) -> StageTable:
    """The table of a stage together with those of `recipe.earlier_runs`, to read. No id is in two of them."""
    earlier = tuple(stage_table(recipe.of_run(run), stage) for run in recipe.earlier_runs)
    return stage_table(recipe, stage)._replace(earlier=earlier)


def committed_ids(table: StageTable) -> pa.Array:
    """Ids of the committed rows, each once, which a restarted stage skips."""
    return table.read([table.key])[table.key].unique()


def drop_committed(rows: pa.Table, key: str, committed: pa.Array) -> pa.Table:
    """The rows whose ids are not committed yet."""
    return rows.filter(pc.invert(pc.is_in(rows[key], value_set=committed)))


def value_counts(table: StageTable, column: str) -> dict[str, int]:
    """How often each value of a column occurs."""
    counts = table.read([column])[column].value_counts().to_pylist()
    return {str(row["values"]): row["counts"] for row in sorted(counts, key=lambda row: str(row["values"]))}
