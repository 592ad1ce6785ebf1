"""Tables and leases on an S3 server of which one request in 20 fails, and whose process is killed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pyarrow as pa
import pytest
import ray
from flaky_proxy import FlakyProxy, flaky_proxy
from s3_server import BUCKET, S3Server, reach
from upath import UPath

from pipelines.serving.ingress import free_ports
from pipelines.session import ray_session
from pipelines.tables import lease as leases
from pipelines.tables.stage import Stage
from pipelines.tables.stage_table import StageTable
from vgs_ray.data.files import atomic_folder, download_folder, remove_folder, write_json
from vgs_ray.data.schemas import PROBLEMS
from vgs_ray.data.storage import list_files, storage_path

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import a test

pytestmark = pytest.mark.slow  # a minute; the run on S3 of test_pipelines.py has the same failures

KINDS = ("slow down", "internal error", "reset before", "reset after")
ROWS = 20
OUTAGE_S = 3.0


@pytest.fixture(scope="module")
def failing(no_session: None, s3: S3Server) -> Iterator[FlakyProxy]:
    """A proxy that fails requests, and a Ray session whose processes all use it."""
    [port] = free_ports(1)
    with flaky_proxy(s3.endpoint, port) as proxy, reach(f"http://127.0.0.1:{port}"), ray_session():
        yield proxy


def problems(number: int) -> pa.Table:
    rows = [
        {"problem_id": f"{number:03}-{row:03}", "problem": f"What is {row}?", "answer": str(row), "split": "train"}
        for row in range(ROWS)
    ]
    return pa.Table.from_pylist(rows, schema=PROBLEMS)


@ray.remote(num_cpus=0.5, max_retries=0)
def write(table: StageTable, number: int) -> int:
    table.write_part(problems(number))
    return len(table.read(["problem_id"]))


def test_a_table_is_written_published_and_read(failing: FlakyProxy, s3: S3Server) -> None:
    folder = storage_path(f"s3://{BUCKET}/failing/clean")
    table = StageTable(folder, "", "problems", "problem_id").claim()
    ray.get([write.remote(table, number) for number in range(30)])
    more = [write.remote(table, number) for number in range(25, 40)]
    with s3.outage(OUTAGE_S):
        ray.get(more)
    described = {"stage": "clean", "identity": {}, "operation": {}, "inputs": {}}
    stage = Stage("clean", folder, time.time(), described)
    published = stage.publish(table)
    stage.close(rows=published.count_rows())
    expected = pa.concat_tables(problems(number) for number in range(40))
    read = StageTable(folder, "", "problems", "problem_id")
    assert read.read().sort_by("problem_id").equals(expected)
    assert read.count_rows() == len(expected)
    assert read.rows_with(["007-003"], ["answer"]).to_pylist() == [{"answer": "3"}]
    assert sorted(list_files(folder)) == ["_stage.json", "_writer", "part-00000-of-00001.parquet"]
    assert all(failing.failed[kind] for kind in (*KINDS, "down")), failing.failed


def test_small_files_and_folders_are_written(failing: FlakyProxy, tmp_path) -> None:
    root = storage_path(f"s3://{BUCKET}/failing/small")
    for number in range(20):
        write_json(root / f"{number}.json", number)
        with atomic_folder(root / "model") as temporary:
            for name in ("config.json", "weights"):
                (temporary / name).write_text(f"{name} {number}")
        download_folder(root / "model", target := tmp_path / str(number))
        assert {file.name: file.read_text() for file in target.iterdir()} == {
            name: f"{name} {number}" for name in ("config.json", "weights")
        }
    assert {(root / f"{number}.json").read_text() for number in range(20)} == {f"{number}\n" for number in range(20)}
    remove_folder(root)
    assert list_files(root) == {}


def test_a_lease_is_taken_renewed_and_released(failing: FlakyProxy, monkeypatch, capfd) -> None:
    """A lease that the server wrote and whose answer was lost belongs to the process all the same."""
    folder: UPath = storage_path(f"s3://{BUCKET}/failing/leased")
    monkeypatch.setattr(leases, "RENEW_S", 0.02)
    monkeypatch.setattr(leases, "POLL_S", 0.1)
    for _ in range(20):
        with leases.lease(folder):
            time.sleep(0.5)
        assert list_files(folder) == {}
    assert "taken over" not in capfd.readouterr().out
