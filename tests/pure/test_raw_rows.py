"""Sources of problems: every kind of source gives the same rows at the same positions, a table at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vgs_ray.cleaning.file_formats import TABLE_ROWS
from vgs_ray.cleaning.raw_rows import Source, inspect_source, read_piece, sandbox_source
from vgs_ray.errors import UserError

COLUMNS = ["problem", "answer", "solution"]
ROWS: list[dict[str, Any]] = [
    {"problem": f"What is ${i}+1$?", "answer": str(i + 1), "extra": i, "list": [{"a": i}]} for i in range(2345)
]


def rows_of(source: Source, columns: list[str] = COLUMNS) -> list[dict[str, Any]]:
    tables = [table for piece in source.pieces for table in read_piece(piece, columns)]
    assert all(table.num_rows <= TABLE_ROWS for table in tables)
    return [row for table in tables for row in table.to_pylist()]


def write_parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet", row_group_size=700)
    return folder / "a.parquet"


def write_arrow(folder: Path, rows: list[dict[str, Any]]) -> Path:
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_file(folder / "a.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=300)
    return folder / "a.arrow"


def write_arrow_stream(folder: Path, rows: list[dict[str, Any]]) -> Path:
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(folder / "a.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=300)
    return folder / "a.arrow"


def write_jsonl(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "a.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows))
    return folder / "a.jsonl"


def write_json(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "a.json").write_text(json.dumps(rows, indent=1))
    return folder / "a.json"


def write_saved_data_set(folder: Path, rows: list[dict[str, Any]]) -> Path:
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(folder / "saved", num_shards=3)
    return folder / "saved"


def write_two_files(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "two").mkdir()
    write_jsonl(folder, rows[:1500]).rename(folder / "two" / "0.jsonl")
    write_jsonl(folder, rows[1500:]).rename(folder / "two" / "1.jsonl")
    return folder / "two"


WRITERS = [
    write_parquet,
    write_arrow,
    write_arrow_stream,
    write_jsonl,
    write_json,
    write_saved_data_set,
    write_two_files,
]


@pytest.mark.parametrize("writer", WRITERS)
def test_every_kind_of_file_gives_the_same_rows(writer: Callable[..., Path], tmp_path: Path) -> None:
    path = str(writer(tmp_path, ROWS))
    expected = [
        {"problem": row["problem"], "answer": row["answer"], "solution": None, "row": i} for i, row in enumerate(ROWS)
    ]
    source = inspect_source(path, 0)
    assert set(source.columns) == set(ROWS[0])
    assert rows_of(source) == expected
    assert sum(piece.rows for piece in source.pieces) == len(ROWS)
    assert rows_of(inspect_source(path, 1234)) == expected[:1234]


def cache_as_hub_data_set(cache: Path, rows: list[dict[str, Any]]) -> None:
    """Write a data set into the cache of `datasets`, as after a download of owner/maths."""
    import datasets

    data = datasets.Dataset.from_list(rows)
    folder = cache / "owner___maths" / "default" / "0.0.0" / "0123456789abcdef"
    folder.mkdir(parents=True)
    writer = datasets.arrow_writer.ArrowWriter(path=str(folder / "maths-train.arrow"), features=data.features)
    for row in data:
        writer.write(row)
    count, size = writer.finalize()
    split = datasets.SplitInfo("train", size, count, dataset_name="maths")
    datasets.DatasetInfo(
        features=data.features, builder_name="parquet", dataset_name="maths", config_name="default", version="0.0.0",
        splits=datasets.SplitDict({"train": split}),
    ).write_to_directory(str(folder))  # fmt: skip


def test_a_hub_data_set_gives_the_same_rows(tmp_path: Path) -> None:
    cache_as_hub_data_set(tmp_path, ROWS)
    code = (
        "import json; from vgs_ray.cleaning.raw_rows import inspect_source, read_piece\n"
        "source = inspect_source('owner/maths', 2000)\n"
        "print(json.dumps([r for p in source.pieces for t in read_piece(p, ['problem', 'answer']) for r in t.to_pylist()]))\n"
        "inspect_source('owner/unknown', 0)"
    )
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, check=False)
    expected = [{"problem": row["problem"], "answer": row["answer"], "row": i} for i, row in enumerate(ROWS[:2000])]
    assert json.loads(done.stdout) == expected
    assert "data set owner/unknown cannot be loaded" in done.stderr
    assert "check the id and the network" in done.stderr


def test_numbers_are_read_as_text_and_missing_values_are_null(tmp_path: Path) -> None:
    rows = [
        {"problem": "a", "answer": 7},
        {"problem": "b", "answer": "7"},
        {"problem": None, "solution": "s", "answer": 0.5},
    ]
    source = inspect_source(str(write_jsonl(tmp_path, rows)), 0)
    assert source.columns == ["problem", "answer", "solution"]
    assert [row["answer"] for row in rows_of(source)] == ["7", "7", "0.5"]
    assert [row["solution"] for row in rows_of(source)] == [None, None, "s"]
    pq.write_table(pa.table({"problem": ["a"], "answer": pa.array([7], pa.int64())}), tmp_path / "b.parquet")
    assert rows_of(inspect_source(str(tmp_path / "b.parquet"), 0))[0]["answer"] == "7"


def test_nan_is_null(tmp_path: Path) -> None:
    rows = [{"problem": "a", "answer": 7.5}, {"problem": "b", "answer": float("nan")}]
    assert [row["answer"] for row in rows_of(inspect_source(str(write_jsonl(tmp_path, rows)), 0))] == ["7.5", None]
    assert [row["answer"] for row in rows_of(inspect_source(str(write_parquet(tmp_path, rows)), 0))] == ["7.5", None]


def test_descriptions_that_are_lists_are_null(tmp_path: Path) -> None:
    source = inspect_source(str(write_parquet(tmp_path, [{"problem": "a", "question_type": ["proof"]}])), 0)
    tables = [
        table
        for piece in source.pieces
        for table in read_piece(piece, ["problem", "question_type"], ("question_type",))
    ]
    assert [row["question_type"] for table in tables for row in table.to_pylist()] == [None]


def test_the_sandbox_is_a_source() -> None:
    source = sandbox_source("train", 30, seed=3)
    assert {"problem", "answer", "solution", "question_type"} <= set(source.columns)
    rows = rows_of(source)
    assert [row["row"] for row in rows] == list(range(30))
    assert rows == rows_of(sandbox_source("train", 40, seed=3))[:30]
    assert rows != rows_of(sandbox_source("train", 30, seed=4))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"problem": "a"}\n{"problem": \n', "line 2 of .* is not valid JSON"),
        ("a.jsonl", '{"problem": "a"}\n[1, 2]\n', "line 2 of .* must be a JSON object"),
        ("a.json", '{"problem": "a"}', "must be a JSON list of objects"),
        ("a.json", "[", "cannot be read"),
        ("a.parquet", "no parquet", "cannot be read"),
        ("a.arrow", "no arrow", "cannot be read"),
        ("a.csv", "problem,answer", "a source is a .parquet, .arrow, .jsonl, .json file"),
    ],
)
def test_unreadable_files_are_named(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        rows_of(inspect_source(str(tmp_path / name), 0))


def test_damage_behind_a_sound_footer_or_the_first_rows_is_named(tmp_path: Path) -> None:
    table = pa.table({"problem": [f"{i} + {i}?" for i in range(3000)], "answer": ["1"] * 3000})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[10:2000] = bytes(1990)
    (tmp_path / "a.parquet").write_bytes(content)
    (tmp_path / "b.jsonl").write_bytes(
        b'{"problem": "a", "answer": "1"}\n' * 2000 + b'{"problem": "\xff", "answer": "1"}\n'
    )
    for name in ("a.parquet", "b.jsonl"):
        source = inspect_source(str(tmp_path / name), 0)
        with pytest.raises(UserError, match=rf"{name} cannot be read"):
            rows_of(source)


def test_categories_are_text(tmp_path: Path) -> None:
    column = pa.array(["a", "b", "a"]).dictionary_encode()
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file,
        pa.ipc.new_file(file, pa.schema([("problem", column.type)])) as out,
    ):
        out.write_table(pa.table({"problem": column}))
    assert [row["problem"] for row in rows_of(inspect_source(str(tmp_path / "a.arrow"), 0), ["problem"])] == [
        "a",
        "b",
        "a",
    ]


@pytest.mark.parametrize("name", ["some/where/else", "plain", "a b/c", "../up", "org/"])
def test_invalid_hub_ids_are_not_requested(name: str) -> None:
    with pytest.raises(UserError, match="does not exist; a source is"):
        inspect_source(name, 0)


def test_folders_of_several_kinds_missing_paths_and_lists_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path, ROWS[:2])
    write_parquet(tmp_path, ROWS[:2])
    for path, message in ((tmp_path, "a folder of files"), (tmp_path / "none.jsonl", "does not exist")):
        with pytest.raises(UserError, match=message):
            inspect_source(str(path), 0)
    with pytest.raises(UserError, match=r"column list of .* must have text or numbers"):
        rows_of(inspect_source(str(tmp_path / "a.parquet"), 0), ["list"])
