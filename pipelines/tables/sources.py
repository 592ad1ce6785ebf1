"""Sources of problems: the sandbox, local Parquet, Arrow or JSON files, or a Hugging Face dataset.

A source, as written in a recipe, becomes a Ray dataset with the columns `COLUMNS` and with `row`, the position in the source.
Tasks inspect and read the source; the driver holds only the list of its pieces (`vgs_ray.cleaning.file_formats.Piece`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError

from pipelines.errors import line_of
from pipelines.placement import stage_options
from pipelines.tables.tasks import map_items
from vgs_ray.cleaning.file_formats import Piece
from vgs_ray.cleaning.raw_rows import Source, inspect_source, read_piece, sandbox_source
from vgs_ray.config import Clean
from vgs_ray.data.files import write_json
from vgs_ray.data.storage import AnyPath
from vgs_ray.errors import UserError
from vgs_ray.evaluate.benchmarks import final_answer, pin_revision

DESCRIPTIONS = ("source", "problem_type", "question_type", "answer_type")  # optional columns, read if they are text
COLUMNS = ("problem", "answer", "solution", *DESCRIPTIONS)
BENCHMARK_PROBLEM = ("problem", "question", "prompt")  # possible names of the problem column of a benchmark
BLOCK_ROWS = 1000
READER_CPUS = 0.25
"""Must differ from the next step's CPUs: Ray Data would fuse steps with equal resources, and one core would do all reading."""


@contextmanager
def readable_source() -> Iterator[None]:
    """Raise the `UserError` of a task in place of Ray's error."""
    try:
        yield
    except RayError as error:
        if not (line := line_of(error)):
            raise
        raise UserError(line) from error


def pin_sources(folder: AnyPath, sources: dict[str, str]) -> dict[str, str]:
    """Add the current revision to each Hugging Face dataset that is named without one.

    Revisions are recorded in the folder of the stage, so an interrupted stage continues with the same rows even if the
    dataset changes.

    Raises:
        UserError: a dataset cannot be found.
    """
    file = folder / "_sources.json"
    recorded = json.loads(file.read_text()) if file.exists() else {}
    with readable_source():
        pinned = {name: recorded.get(name) or pin_revision(source) for name, source in sources.items()}
    write_json(file, pinned)
    return pinned


def train_problems(config: Clean, seed: int) -> tuple[ray.data.Dataset, int]:
    """Raw rows for training, with the columns of the source renamed to ours, and the number of rows."""
    source = _inspect(config.source, "train", config.limit, seed)
    renamed = {"problem": config.problem_column, "answer": config.answer_column, "solution": config.solution_column}
    names = {column: renamed.get(column, column) for column in COLUMNS}
    required = [name for name in (config.problem_column, config.answer_column or config.solution_column) if name]
    remedy = (
        "pass --clean.problem-column and --clean.answer-column (empty: the answer is the box of the solution) with the names "
        "of its columns"
    )
    _require_columns(source, config.source, required, remedy)
    return _dataset(source, names), sum(piece.rows for piece in source.pieces)


def benchmark_problems(name: str, limit: int) -> ray.data.Dataset:
    """Problems and answers of a benchmark, at most `limit` of them (0: all)."""
    source = _inspect(name, "benchmark", limit, seed=0)
    column = _problem_column(source)
    _require_columns(source, name, [column, "answer"], "rename its columns")
    return _dataset(source, {"problem": column, "answer": "answer"}).materialize()


def benchmark_texts(name: str, source: str) -> Iterator[tuple[str, str]]:
    """Each problem of a benchmark with its position, such as `aime-24 row 3`. Reads the source in this process."""
    benchmark = sandbox_source("benchmark", 0, 0) if source == "sandbox" else inspect_source(source, 0)
    column = _problem_column(benchmark)
    if column not in benchmark.columns:
        raise UserError(
            f"{name} has no column {' or '.join(BENCHMARK_PROBLEM)} (found: {', '.join(benchmark.columns) or 'none'}), and an "
            "excluded benchmark must have its problems: rename its column"
        )
    for piece in benchmark.pieces:
        for table in read_piece(piece, [column]):
            for text, row in zip(table[column].to_pylist(), table["row"].to_pylist(), strict=True):
                yield f"{name.rsplit('/', 1)[-1]} row {row}", text or ""


def _inspect(name: str, split: str, limit: int, seed: int) -> Source:
    if name == "sandbox":
        return sandbox_source(split, limit, seed)
    with readable_source():
        return ray.get(_inspect_in_task.options(**stage_options()).remote(name, limit))


@ray.remote(num_cpus=READER_CPUS)
def _inspect_in_task(source: str, limit: int) -> Source:
    return inspect_source(source, limit)


def _problem_column(benchmark: Source) -> str:
    return next((column for column in BENCHMARK_PROBLEM if column in benchmark.columns), BENCHMARK_PROBLEM[0])


def _require_columns(source: Source, name: str, columns: list[str], remedy: str) -> None:
    missing = [column for column in columns if column not in source.columns]
    if missing:
        raise UserError(
            f"{name} has no column {', '.join(missing)}; a source of problems needs {' and '.join(columns)} "
            f"(found: {', '.join(source.columns) or 'none'}): {remedy}"
        )


def _dataset(source: Source, names: dict[str, str]) -> ray.data.Dataset:
    """The rows of the source. `names` maps our columns to those of the source; a column that it lacks is null."""
    present = {ours: theirs for ours, theirs in names.items() if theirs in source.columns}
    work = partial(_read_piece, columns=list(names), present=present)
    rows = map_items([piece._asdict() for piece in source.pieces], work, num_cpus=READER_CPUS)
    return rows.repartition(target_num_rows_per_block=BLOCK_ROWS)


def _read_piece(item: dict[str, Any], columns: list[str], present: dict[str, str]) -> Iterator[pa.Table]:
    for table in read_piece(Piece(**item), list(dict.fromkeys(present.values())), DESCRIPTIONS):
        nulls = pa.nulls(table.num_rows, pa.string())
        values = {name: table[present[name]] if name in present else nulls for name in columns}
        # Some data sets put a rationale before the answer.
        answers = pa.array([text and final_answer(text) for text in values["answer"].to_pylist()], pa.string())
        yield pa.table({**values, "answer": answers, "row": table["row"]})
