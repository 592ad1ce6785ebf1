"""The durable rows of one block while an actor works on it: pieces, merged into one part at the end.

A block takes minutes at 16k tokens, and a killed actor must not lose them. So what is finished becomes a piece every
`FLUSH_S` seconds. The names come from the block's ids: the actor that retries a block finds its pieces and redoes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from pipelines.tables.stage_table import StageTable, part_name
from vgs_ray.data.files import write_json

FLUSH_S = 30.0
TRUSTED_TRIES = 5
"""After so many tries a row of the block may be what kills the engine: its rows then run one at a time."""


class Tries(NamedTuple):
    """How often the block was begun, and the row that ran alone when its engine died."""

    begun: int
    alone: str | None


class Journal:
    """The rows of one block.

    Args:
        parts: where they go.
        keys: ids of all rows of the block.
    """

    def __init__(self, parts: StageTable, keys: Sequence[str]) -> None:
        self.parts, self.block = parts, part_name(keys)
        self.notes = parts.folder / f".tries-{self.block}"

    def begin(self) -> Tries:
        """Note one more try, and return what was noted before."""
        before = Tries(*json.loads(self.notes.read_text())) if self.notes.exists() else Tries(0, None)
        self._note(Tries(before.begun + 1, None))
        return before

    def runs_alone(self, key: str) -> None:
        """Note the row that is about to run by itself."""
        self._note(Tries(TRUSTED_TRIES + 1, key))

    def _note(self, tries: Tries) -> None:
        write_json(self.notes, tries)

    def done(self) -> set[str]:
        """Ids of the rows that are durable."""
        return {key for file in self._durable() for key in self.parts.read_part(file)[self.parts.key].to_pylist()}

    def _durable(self) -> list[Path]:
        whole = self.parts.part_path(self.block)
        return [whole] if whole.exists() else self._pieces()

    def _pieces(self) -> list[Path]:
        return sorted(self.parts.folder.glob(f"part-{self.block}.*.parquet"))

    def write(self, table: pa.Table) -> None:
        """Make some rows of the block durable."""
        if table.num_rows:
            self.parts.write_part(table, name=f"{self.block}.{part_name(table[self.parts.key].to_pylist())}")

    def close(self) -> None:
        """Merge the pieces. The part hides them from the moment that it exists, so no reader sees a row twice."""
        durable = self._durable()
        if durable and durable[0] != self.parts.part_path(self.block):
            self.parts.write_part(pa.concat_tables([self.parts.read_part(file) for file in durable]), name=self.block)
        for piece in self._pieces():
            piece.unlink()
        self.notes.unlink(missing_ok=True)
