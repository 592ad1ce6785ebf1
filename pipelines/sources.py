"""Where problems come from: the sandbox, local Parquet or JSON lines, or a Hugging Face data set.

In: a source as written in a recipe. Out: a Ray data set with the columns of `COLUMNS` and `row`, the position in the source.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import ray

from pipelines.stage import UserError
from vgs_ray.sandbox.rows import benchmark_rows, raw_rows

COLUMNS = ("problem", "answer", "solution", "source", "problem_type", "question_type")
REQUIRED = ("problem", "answer")
SANDBOX_PROBLEMS = 4000
SANDBOX_BENCHMARK = 1000
BLOCK_ROWS = 1000


def train_problems(source: str, limit: int, seed: int) -> ray.data.Dataset:
    """Raw rows for training, at most `limit` of them (0: all)."""
    if source == "sandbox":
        return _blocks(list(raw_rows("train", limit or SANDBOX_PROBLEMS, seed)))
    return _external(source, limit)


def benchmark_problems(source: str, limit: int) -> ray.data.Dataset:
    """Rows of a benchmark, at most `limit` of them (0: all)."""
    if source == "sandbox":
        return _blocks(list(benchmark_rows(limit or SANDBOX_BENCHMARK)))
    return _external(source, limit)


def _blocks(rows: list[dict[str, object]]) -> ray.data.Dataset:
    table = pa.table(
        {name: pa.array([row.get(name) for row in rows], pa.string()) for name in COLUMNS}
        | {"row": pa.array(range(len(rows)), pa.int64())}
    )
    return ray.data.from_arrow([table.slice(start, BLOCK_ROWS) for start in range(0, max(len(rows), 1), BLOCK_ROWS)])


def _external(source: str, limit: int) -> ray.data.Dataset:
    data = _local(Path(source)) if Path(source).exists() else _from_hub(source)
    data = data.limit(limit) if limit else data
    found = data.columns() or []
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise UserError(
            f"{source} has no column {', '.join(missing)}; a source of problems needs {' and '.join(REQUIRED)} "
            f"(found: {', '.join(found) or 'none'}): rename its columns"
        )
    data = data.select_columns([name for name in COLUMNS if name in found]).materialize()
    rows = ray.data.range(data.count()).rename_columns({"id": "row"})
    return data.zip(rows)


def _local(path: Path) -> ray.data.Dataset:
    readers = {".parquet": ray.data.read_parquet, ".jsonl": ray.data.read_json, ".json": ray.data.read_json}
    files = sorted(file for file in path.iterdir() if file.suffix in readers) if path.is_dir() else [path]
    suffixes = {file.suffix for file in files}
    if len(suffixes) != 1 or not suffixes <= set(readers):
        raise UserError(
            f"{path} can't be read as problems; it must be a .parquet or .jsonl file, or a folder of one kind of them: "
            "convert it, or name another source"
        )
    try:
        return readers[suffixes.pop()]([str(file) for file in files])
    except (OSError, pa.ArrowException, ValueError) as error:
        raise UserError(
            f"{path} can't be read ({str(error).splitlines()[0]}): mend the file or name another source"
        ) from error


def _from_hub(source: str) -> ray.data.Dataset:
    looks_local = source.endswith((".parquet", ".jsonl", ".json")) or source.startswith((".", "/")) or "/" not in source
    if looks_local:
        raise UserError(
            f"{source} does not exist; a source is `sandbox`, a .parquet or .jsonl file or folder, or a Hugging Face data "
            "set id such as open-r1/OpenR1-Math-220k: check the path"
        )
    import datasets

    try:
        return ray.data.from_huggingface(datasets.load_dataset(source, split="train"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"data set {source} can't be loaded ({str(error).splitlines()[0]}): check the id and the network"
        ) from error
