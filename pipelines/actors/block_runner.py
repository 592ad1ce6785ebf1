"""Runs a block of rows through an engine, concurrently, and commits rows as they finish.

If the engine keeps dying on a block, its rows run one at a time, and the row that kills the engine becomes an error.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.actors.block_journal import BATCHED_ATTEMPTS, BlockJournal
from pipelines.actors.replica import Replica
from pipelines.tables.stage_table import StageTable
from vgs_ray.engines.interface import EngineDied

Row = dict[str, Any]


@dataclass(frozen=True)
class BlockRunner:
    """How to make the rows of a table.

    Attributes:
        table: the table; it has a column `error`.
        work: makes a row of the table from a row of the block. `EngineDied` ends this process, and Ray starts another actor.
        failed: makes the row of the table for a row that cannot run, given the reason.
        commit_s: seconds between commits; 0 commits each row when it is finished.
        replica: reports what this actor does.
    """

    table: StageTable
    work: Callable[[Row], Awaitable[Row]]
    failed: Callable[[Row, str], Row]
    commit_s: float
    replica: Replica = field(default_factory=Replica)

    async def run(self, block: pa.Table) -> dict[str, int]:
        """Run the rows that no earlier attempt committed.

        Returns:
            How many `rows` ran, and how many of them are `errors`.
        """
        key = self.table.key
        journal = BlockJournal(self.table, block[key].to_pylist())
        attempts, committed = journal.begin_attempt(), journal.committed_ids()
        rows = [row for row in block.to_pylist() if row[key] not in committed]
        self.replica.takes(len(rows))
        try:
            if attempts.begun < BATCHED_ATTEMPTS:
                errors = await self._run_concurrently(rows, journal)
            else:
                errors = await self._run_one_by_one(rows, journal, attempts.alone)
        except EngineDied as error:
            print(f"{error}; this actor ends, and Ray starts another one", flush=True)
            os._exit(1)  # Ray replaces an actor that dies; after an exception or an orderly exit it does not
        journal.merge()
        return {"rows": len(rows), "errors": errors}

    async def _run_concurrently(self, rows: list[Row], journal: BlockJournal) -> int:
        pending, errors = {asyncio.ensure_future(self.work(row)) for row in rows}, 0
        return_when = asyncio.ALL_COMPLETED if self.commit_s else asyncio.FIRST_COMPLETED
        while pending:
            done, pending = await asyncio.wait(pending, timeout=self.commit_s or None, return_when=return_when)
            finished = [task.result() for task in done if not task.exception()]
            await asyncio.to_thread(self._commit, journal, finished)
            errors += sum(row["error"] is not None for row in finished)
            for task in done:
                task.result()  # raises EngineDied, after the finished rows were committed
        return errors

    async def _run_one_by_one(self, rows: list[Row], journal: BlockJournal, killer: str | None) -> int:
        """Run each row alone. `killer` is the id of the row on which the engine died when it ran alone."""
        errors = 0
        for row in rows:
            row_id = row[self.table.key]
            journal.record_alone(row_id)
            if row_id == killer:
                result = self.failed(row, "the engine died when this row ran alone")
            else:
                result = await self.work(row)
            self._commit(journal, [result])
            errors += result["error"] is not None
        return errors

    def _commit(self, journal: BlockJournal, rows: list[Row]) -> None:
        journal.commit(pa.Table.from_pylist(rows, schema=self.table.schema))  # drops keys that are no columns
        self.replica.commits(rows)
