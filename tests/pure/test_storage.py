"""Files and folders behave alike on a disk and on an S3 server."""

from __future__ import annotations

import gc
import os
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flaky_proxy import flaky_proxy
from s3_server import BUCKET, SECRET, S3Server, reach
from upath import UPath

from pipelines.serving.ingress import free_ports
from vgs_ray.data import files
from vgs_ray.data.parquet import arrow_file, parquet_file
from vgs_ray.data.storage import is_local, list_files, storage_path
from vgs_ray.errors import UserError


def make(root: UPath, name: str, text: str) -> UPath:
    path = root / name
    if is_local(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, text)
    return path


def test_a_failed_write_keeps_the_previous_file(any_root: UPath) -> None:
    path = make(any_root, "a.json", "old")
    with pytest.raises(ZeroDivisionError), files.atomic_file(path) as temporary:
        temporary.write_text(f"half {1 / 0}")

    def refuse() -> None:
        raise UserError("displaced")

    with pytest.raises(UserError), files.atomic_file(path, refuse) as temporary:
        temporary.write_text("new")
    assert list_files(any_root) == {"a.json": 3}
    with files.atomic_file(path) as temporary:
        temporary.write_text("newer")
    assert path.read_text() == "newer"
    assert list_files(any_root) == {"a.json": 5}


def test_a_folder_is_replaced_as_a_whole(any_root: UPath) -> None:
    for name in ("first", "deep/second"):
        with files.atomic_folder(any_root / "model") as temporary:
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_text(name)
            (temporary / files.LAST).write_text("{}")
    with pytest.raises(ZeroDivisionError), files.atomic_folder(any_root / "model") as temporary:
        (temporary / "third").write_text(f"half {1 / 0}")
    assert list_files(any_root) == {"model/deep/second": 11, f"model/{files.LAST}": 2}


def test_files_are_listed_and_removed_by_folder(any_root: UPath) -> None:
    for name in ("a/b/one", "a/two", "a-side/three", "four"):
        make(any_root, name, name)
    assert list_files(any_root) == {"a/b/one": 7, "a/two": 5, "a-side/three": 12, "four": 4}
    assert list_files(any_root / "a") == {"b/one": 7, "two": 5}
    assert list_files(any_root / "absent") == {}
    files.remove_folder(any_root / "a")
    files.remove_folder(any_root / "absent")
    assert list_files(any_root) == {"a-side/three": 12, "four": 4}


def test_parquet_is_read_and_written(any_root: UPath) -> None:
    rows = pa.table({"id": ["a", "b"], "tokens": [[1, 2], []]})
    with files.atomic_file(any_root / "rows.parquet") as temporary:
        pq.write_table(rows, temporary)
    system, name = arrow_file(any_root / "rows.parquet")
    assert pq.ParquetFile(name, filesystem=system).read().equals(rows)
    missing, name = arrow_file(any_root / "missing.parquet")
    with pytest.raises(FileNotFoundError):
        pq.ParquetFile(name, filesystem=missing)


def test_a_folder_is_copied_to_an_object_store_and_back(s3_root: UPath, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    contents = {"config.json": b"{}", "deep/weights": os.urandom(12 * 2**20), "empty": b""}
    for name, content in contents.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    files.upload_folder(source, s3_root / "model")
    files.download_folder(s3_root / "model", target)
    assert {name: (target / name).read_bytes() for name in list_files(target)} == contents


@pytest.mark.parametrize("place", ["ftp://host/runs", "s3://", "http://host/runs", "gs:///"])
def test_a_place_without_support_is_refused(place: str) -> None:
    with pytest.raises(UserError, match=r"is not supported; storage is a path, or a URL .*: pass one of these"):
        storage_path(place)


def test_a_path_contains_no_credentials(s3_root: UPath) -> None:
    path = make(s3_root, "a", "content")
    list(s3_root.iterdir())
    assert SECRET not in repr(path) + str(path)
    stored = pickle.dumps(path)
    assert SECRET.encode() not in stored
    assert pickle.loads(stored).read_text() == "content"


def test_a_missing_file_is_an_error_without_output(any_root: UPath, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError):
        (any_root / "missing").read_text()
    gc.collect()
    assert capfd.readouterr().err == ""


def test_small_reads_are_repeated(s3: S3Server) -> None:
    """pyarrow does not repeat a read of fewer bytes than the server's error has."""
    [port], rows = free_ports(1), pa.table({"one": ["a"], "two": [["b"] * 200]})
    with flaky_proxy(s3.endpoint, port, rate=0.2) as proxy, reach(f"http://127.0.0.1:{port}"):
        path = storage_path(f"s3://{BUCKET}/small/rows.parquet")
        with files.atomic_file(path) as temporary:
            pq.write_table(rows, temporary)
        for _ in range(30):
            assert parquet_file(path).read(["one"])["one"].to_pylist() == ["a"]
    assert proxy.failed["slow down"]
    assert proxy.failed["internal error"]


def test_objects_that_stand_for_folders_are_not_files(s3_root: UPath, tmp_path: Path) -> None:
    system, name = arrow_file(s3_root)
    system.create_dir(f"{name}/folder/below", recursive=True)
    make(s3_root, "folder/below/file", "content")
    assert list_files(s3_root) == {"folder/below/file": 7}
    files.download_folder(s3_root, tmp_path / "copy")
    assert list_files(tmp_path / "copy") == {"folder/below/file": 7}
