"""A block of rows through an engine: side by side, durable as they finish, one at a time where the engine keeps dying.

In: the rows of one block and a coroutine that makes a row of the table from one of them. Out: the rows on disk. Rows that an
earlier try of the block made durable are not done again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.actors.journal import TRUSTED_TRIES, Journal
from pipelines.tables.stage_table import StageTable
from vgs_ray.engines.interface import EngineDied

Row = dict[str, Any]


@dataclass(frozen=True)
class Durable:
    """What is done with each row of a table.

    Attributes:
        out: the table; it has a column `error`.
        work: makes a finished row; `EngineDied` ends this process, so that another actor goes on.
        failed: the finished row of one that can't be worked on, with the reason.
        flush_s: seconds between writes; 0 writes each row when it is finished.
    """

    out: StageTable
    work: Callable[[Row], Awaitable[Row]]
    failed: Callable[[Row, str], Row]
    flush_s: float

    async def finish(self, batch: pa.Table) -> dict[str, int]:
        """Work through a block and return how many `rows` were left to do, and how many of them are `errors`."""
        journal = Journal(self.out, batch[self.out.key].to_pylist())
        tries, done = journal.begin(), journal.done()
        rows = [row for row in batch.to_pylist() if row[self.out.key] not in done]
        try:
            if tries.begun < TRUSTED_TRIES:
                errors = await self._together(rows, journal)
            else:
                errors = await self._one_by_one(rows, journal, tries.alone)
        except EngineDied as error:
            print(f"{error}; this actor ends and another one goes on", flush=True)
            os._exit(1)  # an exception would fail the job, and an orderly exit would not be replaced
        journal.close()
        return {"rows": len(rows), "errors": errors}

    async def _together(self, rows: list[Row], journal: Journal) -> int:
        pending, errors = {asyncio.ensure_future(self.work(row)) for row in rows}, 0
        when = asyncio.ALL_COMPLETED if self.flush_s else asyncio.FIRST_COMPLETED
        while pending:
            done, pending = await asyncio.wait(pending, timeout=self.flush_s or None, return_when=when)
            finished = [task.result() for task in done if not task.exception()]
            await asyncio.to_thread(self._write, journal, finished)
            errors += sum(row["error"] is not None for row in finished)
            for task in done:
                task.result()  # raises where the engine died
        return errors

    async def _one_by_one(self, rows: list[Row], journal: Journal, alone: str | None) -> int:
        """The block has killed engines: find out which row does it, and make that one an error."""
        errors = 0
        for row in rows:
            key = row[self.out.key]
            journal.runs_alone(key)
            result = (
                self.failed(row, "the engine died when this row ran alone") if key == alone else await self.work(row)
            )
            self._write(journal, [result])
            errors += result["error"] is not None
        return errors

    def _write(self, journal: Journal, rows: list[Row]) -> None:
        journal.write(pa.Table.from_pylist(rows, schema=self.out.schema))  # leaves out what is in no column
