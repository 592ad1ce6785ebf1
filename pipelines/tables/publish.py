"""Publish a table: copy its parts to few large files, each row once. The manifest then makes these files the table.

An id may be in two parts, if a worker that was believed dead wrote its rows after all. The first one counts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from pipelines.tables import parts
from pipelines.tables.parts import Part
from pipelines.tables.stage_table import StageTable, open_file
from vgs_ray.data.files import atomic_file

FILE_BYTES = 512 * 2**20
"""A file is complete when its parts have this size."""
PARTS_PER_TASK = 64
TASK_CPUS = 0.25


class Output(NamedTuple):
    """A file to write: its parts, and for some of them the rows to leave out."""

    name: str
    parts: list[Part]
    left_out: dict[str, list[int]]


def publish(table: StageTable) -> StageTable:
    """Write the files of a table whose rows are all committed. The parts stay until the manifest is written.

    Returns:
        The table with its new files.
    """
    if table.published_files() is not None:
        return table
    found = parts.list_parts(table.parts_folder)
    doubles = doubled_rows(row_ids(table, found))
    outputs = plan_outputs(found, doubles)
    write = ray.remote(num_cpus=TASK_CPUS)(write_output)
    return table._replace(published=tuple(ray.get([write.remote(table, output) for output in outputs])))


def row_ids(table: StageTable, found: list[Part]) -> pa.Table:
    """The id of each row, with its part (an index) and its place in the part."""
    read, waiting = ray.remote(num_cpus=TASK_CPUS)(_read_ids), []
    for start in range(0, len(found), PARTS_PER_TASK):
        waiting.append(read.remote(table, found[start : start + PARTS_PER_TASK], start))
    return pa.concat_tables(ray.get(waiting)) if waiting else _ids_table([], [], [])


def _read_ids(table: StageTable, some: list[Part], first: int) -> pa.Table:
    columns = [open_file(table.part_path(part.name)).read([table.key])[table.key] for part in some]
    tables = [
        _ids_table(ids.cast(pa.string()).to_pylist(), [first + index] * len(ids), range(len(ids)))
        for index, ids in enumerate(columns)
    ]
    return pa.concat_tables(tables)


def _ids_table(ids: Any, numbers: Any, places: Any) -> pa.Table:
    columns = {"id": pa.array(ids, pa.string()), "part": pa.array(numbers, pa.int64())}
    return pa.table({**columns, "place": pa.array(places, pa.int64())})


def doubled_rows(ids: pa.Table) -> list[tuple[int, int]]:
    """The rows whose id an earlier row has, as (part, place)."""
    rows = ids.append_column("row", pa.array(range(len(ids)), pa.int64()))
    first = rows.group_by("id").aggregate([("row", "min")])["row_min"]
    if len(first) == len(rows):
        return []
    doubled = rows.filter(pc.invert(pc.is_in(rows["row"], value_set=first.combine_chunks())))
    return list(zip(doubled["part"].to_pylist(), doubled["place"].to_pylist(), strict=True))


def plan_outputs(found: list[Part], doubles: list[tuple[int, int]]) -> list[Output]:
    """Which parts each file gets, in the order of their names."""
    left_out: dict[str, list[int]] = {}
    for number, place in doubles:
        left_out.setdefault(found[number].name, []).append(place)
    groups: list[list[Part]] = []
    size = FILE_BYTES
    for part in found:
        if size >= FILE_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(part)
        size += part.size
    names = [f"part-{index:05d}-of-{len(groups):05d}.parquet" for index in range(len(groups))]
    return [
        Output(name, group, {part.name: left_out[part.name] for part in group if part.name in left_out})
        for name, group in zip(names, groups, strict=True)
    ]


def write_output(table: StageTable, output: Output) -> dict[str, Any]:
    """Write one file, in which each part is a row group, with one part in memory at a time.

    Returns:
        Its entry in the manifest.
    """
    file, rows = table.folder / output.name, 0
    with atomic_file(file) as temporary:
        with pq.ParquetWriter(temporary, table.schema, compression="zstd") as writer:
            for part in output.parts:
                content = open_file(table.part_path(part.name)).read()
                if part.name in output.left_out:
                    drop = pa.array(output.left_out[part.name], pa.int64())
                    places = pa.array(range(len(content)), pa.int64())
                    content = content.filter(pc.invert(pc.is_in(places, value_set=drop)))
                if len(content):
                    writer.write_table(content.cast(table.schema))
                rows += len(content)
        size = temporary.stat().st_size
    relative = f"{table.subfolder}/{output.name}" if table.subfolder else output.name
    return {"file": relative, "rows": rows, "bytes": size}
