"""Publish a table: copy its parts to few large files, each row once. The manifest then makes these files the table.

An id may be in two parts, if a worker that was believed dead wrote its rows after all. The first one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from upath import UPath

from pipelines.placement import stage_options
from pipelines.tables import parts
from pipelines.tables.parts import Part
from pipelines.tables.stage_table import StageTable, open_file
from vgs_ray.data.failpoints import failpoint
from vgs_ray.data.files import atomic_file

FILE_BYTES = 512 * 2**20
"""A file is complete when its parts have this size."""
GROUP_ROWS, GROUP_BYTES = 1024, 64 * 2**20
"""A row group is complete when it has so many rows, or bytes in memory. Every reader of a file reads the list of its row groups,
which must stay short."""
PARTS_PER_TASK = 64
TASK_CPUS = 0.25
IDS = pa.schema([("id", pa.string()), ("part", pa.int64()), ("place", pa.int64())])

RunAll = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], list[Any]]


class Output(NamedTuple):
    """A file to write: its parts, and for some of them the rows to leave out."""

    name: str
    parts: list[Part]
    left_out: dict[str, list[int]]


def in_tasks(work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The results of `work(*each)` for each tuple of arguments, computed in Ray tasks."""
    task = ray.remote(num_cpus=TASK_CPUS, **stage_options())(work)
    return list(ray.get([task.remote(*each) for each in arguments]))


def in_this_process(work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The results of `work(*each)` for each tuple of arguments, without Ray."""
    return [work(*each) for each in arguments]


def publish(table: StageTable, run_all: RunAll = in_tasks) -> StageTable:
    """Write the files of a table whose rows are all committed. The parts stay until the manifest is written.

    Processes that still write to the table, such as actors that Ray believed dead, are displaced first.

    Args:
        table: the table.
        run_all: computes the results of a function for several tuples of arguments.

    Returns:
        The table with its new files.

    Raises:
        Displaced: another process has claimed the table.
    """
    failpoint("publish.before")
    table = table.claim()
    found = parts.list_parts(table.parts_folder)
    ids = row_ids(table, found, run_all)
    outputs = plan_outputs(found, doubled_rows(ids), smallest_ids(ids))
    failpoint("publish.planned")
    published = run_all(write_output, [(table, output) for output in outputs])
    failpoint("publish.after")
    return table._replace(published=tuple(published))


def row_ids(table: StageTable, found: list[Part], run_all: RunAll = in_tasks) -> pa.Table:
    """The id of each row, with its part (an index) and its place in the part."""
    starts = range(0, len(found), PARTS_PER_TASK)
    read = run_all(_read_ids, [(table, found[start : start + PARTS_PER_TASK], start) for start in starts])
    return pa.concat_tables([IDS.empty_table(), *read])


def _read_ids(table: StageTable, some: list[Part], first: int) -> pa.Table:
    tables = []
    for index, part in enumerate(some, first):
        ids = open_file(table.part_path(part.name)).read([table.key])[table.key].cast(pa.string())
        tables.append(pa.table([ids, np.full(len(ids), index), np.arange(len(ids))], schema=IDS))
    return pa.concat_tables(tables)


def doubled_rows(ids: pa.Table) -> list[tuple[int, int]]:
    """The rows whose id an earlier row has, as (part, place)."""
    rows = ids.append_column("row", pa.array(np.arange(len(ids))))
    first = rows.group_by("id").aggregate([("row", "min")])["row_min"]
    if len(first) == len(rows):
        return []
    doubled = rows.filter(pc.invert(pc.is_in(rows["row"], value_set=first.combine_chunks())))
    return list(zip(doubled["part"].to_pylist(), doubled["place"].to_pylist(), strict=True))


def smallest_ids(ids: pa.Table) -> dict[int, str]:
    """The smallest id of each part that has rows."""
    smallest = ids.group_by("part").aggregate([("id", "min")])
    return dict(zip(smallest["part"].to_pylist(), smallest["id_min"].to_pylist(), strict=True))


def plan_outputs(found: list[Part], doubles: list[tuple[int, int]], smallest: dict[int, str]) -> list[Output]:
    """Which parts each file gets, in the order of their smallest ids. Ids begin with that of the problem, and a stage works
    through the problems in their order, so the rows of a problem come to lie together.
    """
    left_out: dict[str, list[int]] = {}
    for number, place in doubles:
        left_out.setdefault(found[number].name, []).append(place)
    groups: list[list[Part]] = []
    size = FILE_BYTES
    for index in sorted(range(len(found)), key=lambda index: (smallest.get(index, ""), found[index].name)):
        part = found[index]
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
    """Write one file, with one row group in memory at a time.

    Returns:
        Its entry in the manifest.
    """
    file, rows = table.folder / output.name, 0
    failpoint("output.before")
    with atomic_file(file, table.check_writer) as temporary:
        with pq.ParquetWriter(temporary, table.schema, compression="zstd") as writer:
            for group in _row_groups(table, output):
                writer.write_table(group)
                rows += len(group)
        size = temporary.stat().st_size
    failpoint("output.after")
    relative = f"{table.subfolder}/{output.name}" if table.subfolder else output.name
    return {"file": relative, "rows": rows, "bytes": size}


def _row_groups(table: StageTable, output: Output) -> Iterator[pa.Table]:
    """The rows of a file: those of small parts together in one row group."""
    group = empty = table.schema.empty_table()
    for part in output.parts:
        for content in _kept_rows(table.part_path(part.name), output.left_out.get(part.name, [])):
            group = pa.concat_tables([group, content.cast(table.schema)])
            if len(group) >= GROUP_ROWS or group.nbytes >= GROUP_BYTES:
                yield group
                group = empty
    if len(group):
        yield group


def _kept_rows(path: UPath, left_out: list[int]) -> Iterator[pa.Table]:
    """The rows of each row group of a part, without those at some places of the part."""
    file, start, drop = open_file(path), 0, pa.array(left_out, pa.int64())
    for group in range(file.num_row_groups):
        content = file.read_row_group(group)
        places = pa.array(np.arange(start, start + len(content)))
        start += len(content)
        if len(content := content.filter(pc.invert(pc.is_in(places, value_set=drop)))):
            yield content
