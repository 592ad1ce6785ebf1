"""A small stage whose rows a scripted engine makes: the work of its driver and its actors, and the table that must come out."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa

from pipelines.actors.block_runner import BlockRunner, Row
from pipelines.tables import lease
from pipelines.tables.publish import in_this_process
from pipelines.tables.stage import Stage, only_writer, open_stage
from pipelines.tables.stage_table import StageTable, committed_ids, stage_table
from vgs_ray.config import Recipe
from vgs_ray.data.schemas import ROLL_OUTS
from vgs_ray.data.storage import list_files

ROWS = 36
KEPT = {"_stage.json", "_started.json", "_writer"}


def row_of(request: Row) -> Row:
    """What the scripted engine makes of a request: tokens that depend on its id only."""
    draw = random.Random(request["roll_out_id"])
    tokens = [draw.randrange(1000) for _ in range(draw.randrange(1, 40))]
    shared = {"roll_in_id": "r", "problem_id": "p", "policy": "scripted", "cut": 0, "seed": 1}
    fixed = {"finish_reason": "stop", "sampling": "{}", "engine": "none", "error": None}
    return {**request, **shared, **fixed, "tokens": tokens}


IDS = [f"row-{index:02d}" for index in range(ROWS)]
EXPECTED = pa.Table.from_pylist([row_of({"roll_out_id": row_id}) for row_id in IDS], schema=ROLL_OUTS)


def open_(recipe: Recipe, block: int) -> tuple[Stage, StageTable, list[list[str]]] | None:
    """What the driver does first: the stage, its table and the blocks of the rows that are missing; None if it is complete."""
    lease.POLL_S = 0.02
    with only_writer(recipe):
        stage = open_stage(recipe, "roll_out", ())
        if stage is None:
            return None
        table = stage_table(recipe, "roll_out").claim()
    committed = set(committed_ids(table).to_pylist())
    left = [row_id for row_id in IDS if row_id not in committed]
    return stage, table, [left[start : start + block] for start in range(0, len(left), block)]


def work(table: StageTable, blocks: list[list[str]], generated: Path, commit_s: float) -> None:
    """What an actor does: make the rows of its blocks."""

    async def make(request: Row) -> Row:
        await asyncio.sleep(random.Random(request["roll_out_id"]).random() * 0.01)
        with generated.open("a") as log:
            log.write(f"{request['roll_out_id']}\n")
        return row_of(request)

    runner = BlockRunner(table, make, lambda request, _: row_of(request), commit_s)
    for ids in blocks:
        asyncio.run(runner.run(pa.table({"roll_out_id": ids})))


def close(stage: Stage, table: StageTable) -> None:
    """What the driver does last."""
    table = stage.publish(table, in_this_process)
    stage.close(rows=table.count_rows())


def committed(recipe: Recipe) -> set[str]:
    return set(committed_ids(stage_table(recipe, "roll_out")).to_pylist())


def verdict(recipe: Recipe) -> str:
    """What is wrong with a finished stage; empty if nothing is."""
    table = stage_table(recipe, "roll_out")
    rows = table.read().sort_by(table.key)
    found = Counter(rows[table.key].to_pylist())
    if lost := set(IDS) - set(found):
        return f"lost {sorted(lost)}"
    if doubled := [row_id for row_id, count in found.items() if count > 1]:
        return f"doubled {doubled}"
    if digest(rows) != digest(EXPECTED):
        return "the rows have other bytes"
    names = {str(file).rpartition("/roll_out/")[2] for file in table.files()}
    if other := set(list_files(table.stage)) - names - KEPT:
        return f"the folder has other files: {sorted(other)}"
    return ""


def digest(rows: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows.combine_chunks())
    return hashlib.blake2b(sink.getvalue()).hexdigest()
