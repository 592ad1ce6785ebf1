"""Where problems come from: the sandbox, local Parquet, Arrow or JSON, or a Hugging Face data set.

In: a source as written in a recipe. Out: a Ray data set with the columns of `COLUMNS` and `row`, the position in the source.
Tasks measure and read the source; on the driver there are only its pieces (`vgs_ray.cleaning.raw_rows.Piece`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import ray
from ray.exceptions import RayError

from pipelines.errors import line_of
from vgs_ray.cleaning.raw_rows import Piece, Source, inspect_source, read_piece, sandbox_source
from vgs_ray.config import Clean
from vgs_ray.data.files import write_json
from vgs_ray.data.source_names import SourceError
from vgs_ray.errors import UserError
from vgs_ray.evaluate.benchmarks import final_answer, pin_revision

DESCRIPTIONS = ("source", "problem_type", "question_type", "answer_type")  # used where a source has them as text
COLUMNS = ("problem", "answer", "solution", *DESCRIPTIONS)
BENCHMARK_PROBLEM = ("problem", "question", "prompt")  # names of the one column that an excluded benchmark needs
BLOCK_ROWS = 1000
READER_CPUS = 0.25  # other than what the next step asks for: Ray would make one task of both, and read on one core


@contextmanager
def readable_source() -> Iterator[None]:
    """Turn a `SourceError`, also one from a task, into what the person who typed the command can mend."""
    try:
        yield
    except (SourceError, RayError) as error:
        if not (line := line_of(error)):
            raise
        raise UserError(line) from error


def resolved(folder: Path, sources: dict[str, str]) -> dict[str, str]:
    """Each source with the revision that is read, where it is a data set on the hub that names none.

    A revision is noted in the stage's folder when it is first found, so that an interrupted stage goes on with the same rows
    even if the data set has changed since.

    Raises:
        UserError: a data set can't be found.
    """
    file = folder / "_sources.json"
    noted = json.loads(file.read_text()) if file.exists() else {}
    with readable_source():
        found = {name: noted.get(name) or pin_revision(source) for name, source in sources.items()}
    write_json(file, found)
    return found


@ray.remote(num_cpus=READER_CPUS)
def _measured(source: str, limit: int) -> Source:
    return inspect_source(source, limit)


def _source(name: str, split: str, limit: int, seed: int) -> Source:
    if name == "sandbox":
        return sandbox_source(split, limit, seed)
    with readable_source():
        return ray.get(_measured.remote(name, limit))


def train_problems(config: Clean, seed: int) -> tuple[ray.data.Dataset, int]:
    """Raw rows for training, with the source's columns under our names, and how many there are."""
    source = _source(config.source, "train", config.limit, seed)
    renamed = {"problem": config.problem_column, "answer": config.answer_column, "solution": config.solution_column}
    names = {column: renamed.get(column, column) for column in COLUMNS}
    required = [name for name in (config.problem_column, config.answer_column or config.solution_column) if name]
    _require(
        source,
        config.source,
        required,
        "pass --clean.problem-column, --clean.answer-column (empty: the solution's box)",
    )
    return _dataset(source, names), sum(piece.rows for piece in source.pieces)


def benchmark_problems(name: str, limit: int) -> ray.data.Dataset:
    """Problems and answers of a benchmark's source, at most `limit` of them (0: all)."""
    source = _source(name, "benchmark", limit, seed=0)
    column = next((column for column in BENCHMARK_PROBLEM if column in source.columns), BENCHMARK_PROBLEM[0])
    _require(source, name, [column, "answer"], "rename its columns")
    return _dataset(source, {"problem": column, "answer": "answer"}).materialize()


def benchmark_texts(name: str, source: str) -> Iterator[tuple[str, str]]:
    """Each problem of a benchmark with its place, such as `aime-24 row 3`; for use inside a task."""
    measured = sandbox_source("benchmark", 0, 0) if source == "sandbox" else inspect_source(source, 0)
    column = next((column for column in BENCHMARK_PROBLEM if column in measured.columns), BENCHMARK_PROBLEM[0])
    if column not in measured.columns:
        raise SourceError(
            f"{name} has no column {' or '.join(BENCHMARK_PROBLEM)} (found: {', '.join(measured.columns) or 'none'}), and a "
            "benchmark that is excluded needs its problems: rename its column"
        )
    for piece in measured.pieces:
        for table in read_piece(piece, [column]):
            for text, row in zip(table[column].to_pylist(), table["row"].to_pylist(), strict=True):
                yield f"{name.rsplit('/', 1)[-1]} row {row}", text or ""


def _require(source: Source, name: str, columns: list[str], remedy: str) -> None:
    missing = [column for column in columns if column not in source.columns]
    if missing:
        raise UserError(
            f"{name} has no column {', '.join(missing)}; a source of problems needs {' and '.join(columns)} "
            f"(found: {', '.join(source.columns) or 'none'}): {remedy}"
        )


def _dataset(source: Source, names: dict[str, str]) -> ray.data.Dataset:
    """The source's rows; `names` gives the source's column for each of ours."""
    there = {ours: theirs for ours, theirs in names.items() if theirs in source.columns}

    def rows(batch: pa.Table) -> Iterator[pa.Table]:
        for fields in batch.to_pylist():
            for table in read_piece(Piece(**fields), list(dict.fromkeys(there.values())), DESCRIPTIONS):
                columns = {ours: table[there[ours]] if ours in there else _nothing(table) for ours in names}
                yield pa.table({**columns, "answer": _answers(columns["answer"]), "row": table["row"]})

    pieces = pa.Table.from_pylist([piece._asdict() for piece in source.pieces], schema=PIECES)
    blocks = [pieces.slice(i, 1) for i in range(pieces.num_rows)] or [pieces]
    read_rows = ray.data.from_arrow(blocks).map_batches(
        rows, batch_format="pyarrow", batch_size=None, num_cpus=READER_CPUS
    )
    return read_rows.repartition(target_num_rows_per_block=BLOCK_ROWS)


PIECES = pa.schema(
    [("kind", pa.string()), ("path", pa.string()), ("part", pa.int64()), ("first", pa.int64()), ("rows", pa.int64())]
)


def _answers(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Answers alone, without the rationales that some data sets put before them."""
    return pa.array([text and final_answer(text) for text in column.to_pylist()], pa.string())


def _nothing(table: pa.Table) -> pa.Array:
    return pa.nulls(table.num_rows, pa.string())
