"""The committed rows of a block while an actor works on it: pieces, which are merged into one part at the end.

With sequences of 16k tokens a block takes minutes, and its finished rows must survive a killed actor. They are therefore
written as a piece every few seconds. File names are derived from the ids of the block, so the actor that retries the block
finds its pieces and does not repeat their rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from pipelines.tables.parts import list_parts, part_name, piece_name
from pipelines.tables.stage_table import StageTable, open_file
from vgs_ray.data.failpoints import failpoint
from vgs_ray.data.files import make_folder, read_if_exists, remove_folder, write_json

BATCHED_ATTEMPTS = 5
"""After this many attempts, one row of the block may be what kills the engine. The rows then run one at a time."""


class Attempts(NamedTuple):
    """How often actors began the block, and the id of the row that ran alone when the last attempt ended."""

    begun: int
    alone: str | None


class BlockJournal:
    """The rows of one block in storage.

    Args:
        table: the table of the rows.
        ids: ids of all rows of the block.
    """

    def __init__(self, table: StageTable, ids: Sequence[str]) -> None:
        self._table, self._ids, self._block = table, ids, part_name(ids)
        self._attempts = table.parts_folder / f".attempts-{self._block}"

    def begin_attempt(self) -> Attempts:
        """Record one more attempt, and return the record of the earlier ones.

        Raises:
            Displaced: another process has claimed the table.
        """
        self._table.check_writer()
        make_folder(self._table.parts_folder)
        text = read_if_exists(self._attempts)
        earlier = Attempts(*json.loads(text)) if text else Attempts(0, None)
        write_json(self._attempts, Attempts(earlier.begun + 1, None))
        return earlier

    def record_alone(self, row_id: str) -> None:
        """Record the row that is about to run alone."""
        write_json(self._attempts, Attempts(BATCHED_ATTEMPTS + 1, row_id))

    def committed_ids(self) -> set[str]:
        """Ids of the rows that need not run again."""
        key = self._table.key
        try:
            return {row_id for file in self._files() for row_id in _read(file, [key])[key].to_pylist()}
        except FileNotFoundError:  # another actor has merged the pieces in between
            return set(_read(self._part(), [key])[key].to_pylist())

    def commit(self, rows: pa.Table) -> None:
        """Write some rows of the block as a piece.

        Raises:
            Displaced: another process has claimed the table.
        """
        if not rows.num_rows:
            return
        try:
            self._table.write_part(rows, name=piece_name(self._block, rows[self._table.key].to_pylist()))
        except FileNotFoundError:
            self._table.check_writer()
            # If there is a part, an actor that Ray believes dead has merged the block, and removed the folder.
            if not self._part().exists():
                raise

    def merge(self) -> None:
        """Merge the pieces of all rows into the part. Readers ignore them once the part exists, so no reader sees a row twice.

        An actor that Ray believes dead may run the block beside this one. Then a row may be in two pieces, of which one counts,
        and the other actor may merge the block at any time, after which the part is whole.

        Raises:
            Displaced: another process has claimed the table.
            ValueError: a row was not committed.
        """
        failpoint("merge.before")
        if not self._part().exists():
            self._write_part()
        failpoint("merge.written")
        remove_folder(self._table.parts_folder / self._block)
        failpoint("merge.removed")
        self._attempts.unlink(missing_ok=True)

    def _write_part(self) -> None:
        key = self._table.key
        try:
            rows = pa.concat_tables([self._table.schema.empty_table(), *map(_read, self._pieces())])
        except FileNotFoundError:  # the other actor has merged them
            rows = self._table.schema.empty_table()
        order = pc.index_in(pa.array(self._ids, rows[key].type), value_set=rows[key].combine_chunks())
        if order.null_count == 0:
            self._table.write_part(rows.take(order), name=self._block)
        elif not self._part().exists():
            self._table.check_writer()
            raise ValueError(f"{order.null_count} of {len(self._ids)} rows of block {self._block} are not committed")

    def _files(self) -> list[UPath]:
        return [self._part()] if self._part().exists() else self._pieces()

    def _pieces(self) -> list[UPath]:
        pieces = list_parts(self._table.parts_folder, of=self._block)
        return [self._table.part_path(piece.name) for piece in pieces]

    def _part(self) -> UPath:
        return self._table.part_path(self._block)


def _read(file: UPath, columns: list[str] | None = None) -> pa.Table:
    return open_file(file).read(columns)
