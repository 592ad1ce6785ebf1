"""Disks that are full, read-only or not shared by all nodes: each error is one line, also when a Ray worker raises it."""

from __future__ import annotations

import os
import pickle
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import obstore
import pyarrow as pa
import pytest
import ray
from obstore.exceptions import BaseError
from ray.cluster_utils import Cluster
from ray.exceptions import RayTaskError
from s3_server import SECRET, S3Server, forget_clients, reach
from upath import UPath

from pipelines.cli import cli
from pipelines.errors import line_of
from pipelines.recipes import sandbox
from pipelines.session import ray_session
from pipelines.tables.stage import only_writer, open_stage
from pipelines.tables.stage_table import StageTable
from pipelines.tables.tasks import write_dataset
from vgs_ray.config import Recipe
from vgs_ray.data.node_disk import node_root
from vgs_ray.data.parquet import arrow_file
from vgs_ray.data.schemas import PROBLEMS
from vgs_ray.data.storage import list_files, object_store, storage_path
from vgs_ray.errors import UserError

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import a test

Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a file system in memory with the options that are named."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip("file systems can't be mounted here (needs root)")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def noise(_: pa.Table) -> pa.Table:
    rows = [{"problem_id": secrets.token_hex(64), "problem": "p", "answer": "1", "split": "train"} for _ in range(4000)]
    return pa.Table.from_pylist(rows, schema=PROBLEMS)


class Writer:
    """Writes as the actors that sample and search do."""

    def __init__(self, parts: StageTable, message: str = "") -> None:
        self.parts = parts
        if message:
            raise UserError(message)

    async def __call__(self, batch: pa.Table) -> pa.Table:
        self.parts.write_part(noise(batch))
        return batch


def actors(parts: StageTable, *arguments: str) -> None:
    pool = ray.data.ActorPoolStrategy(size=1, max_concurrent_calls_per_actor=2)
    ray.data.range(2).map_batches(
        Writer, compute=pool, num_cpus=0.1, batch_format="pyarrow", fn_constructor_args=(parts, *arguments)
    ).materialize()


def tasks(parts: StageTable) -> None:
    write_dataset(ray.data.range(2).map_batches(noise, batch_format="pyarrow"), parts.write_part)


def test_errors_of_workers_are_one_line(mount: Mount, tmp_path: Path, monkeypatch, capsys) -> None:
    parts = StageTable(storage_path(mount("size=64k")) / "clean", "", "problems", "problem_id")
    parts.folder.mkdir()
    full = "error: no space left on the disk of the run: free some space, then run the same command"
    cases: list[tuple[Callable[[Recipe], None], str]] = [
        (lambda _: tasks(parts), full),
        (lambda _: actors(parts), full),
        (lambda _: actors(parts, "the engine did not start: mend it"), "error: the engine did not start: mend it"),
    ]
    monkeypatch.setattr("sys.argv", ["pipelines.clean", "sandbox", "--root", str(tmp_path / "runs")])
    with ray_session():
        for work, line in cases:
            with pytest.raises(SystemExit) as stop:
                cli(work, "pipelines.clean")
            assert stop.value.code == 2
            assert capsys.readouterr().err.splitlines()[-1] == line
            assert not [path for path in parts.folder.rglob("*") if path.is_file()], "no partial file"


def test_a_full_disk_of_a_node_is_named(mount: Mount, s3_root: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts for an object store are written there first."""
    monkeypatch.setattr(tempfile, "tempdir", str(mount("size=64k")))
    parts = StageTable(s3_root / "clean", "", "problems", "problem_id")
    with pytest.raises(UserError, match=rf"no space left in {node_root()} on {socket.gethostname()}: .*TMPDIR"):
        parts.write_part(noise(pa.table({})))
    assert not list_files(s3_root)
    assert not [path for path in node_root().rglob("*") if path.is_file()]


def test_a_read_only_root_is_refused(mount: Mount) -> None:
    root = mount("size=1m")
    recipe = replace(sandbox(), root=str(root))
    (recipe.folder / "clean").mkdir(parents=True)
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
    with pytest.raises(UserError, match=r"sandbox is not writable \(read-only.*--root"), only_writer(recipe):
        pass
    with pytest.raises(UserError, match=r"clean is not writable \(read-only.*--root"):
        open_stage(recipe, "clean", ())
    with pytest.raises(UserError, match=r"other/clean can't be created \(Read-only file system\).*--root"):
        open_stage(replace(recipe, run_name="other"), "clean", ())


def test_a_folder_that_a_node_does_not_share_is_refused(no_ray: None, tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    own.mkdir()
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", str(own)], capture_output=True).returncode:
        pytest.skip("a node can't be given a disk of its own here (needs root)")
    start = f"mount -t tmpfs none {own}; exec ray start --address=$ADDRESS --num-cpus=1 --block"
    with more_nodes(["unshare", "-m", "bash", "-c", start], dict(os.environ)):
        with ray_session(folder=shared):
            assert not list(shared.iterdir())
        with (
            pytest.raises(UserError, match=r"own is not the same folder on .*shared file system.*--root"),
            ray_session(folder=own),
        ):
            pass
        assert not list(own.iterdir())


@contextmanager
def more_nodes(command: list[str], *environments: dict[str, str]) -> Iterator[None]:
    """A cluster of a node with the environment of this process, and nodes that a command starts; this process is connected."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    extra = {"PATH": f"{Path(ray.__file__).parents[4] / 'bin'}:{os.environ['PATH']}", "ADDRESS": cluster.address}
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        for environment in environments:
            node = subprocess.Popen(
                command, env=environment | extra, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            nodes.append(node)
            while len(ray.nodes()) <= len(nodes):
                assert node.poll() is None, "the node has ended"
                time.sleep(0.1)
        yield
    finally:
        ray.shutdown()
        for node in nodes:
            node.terminate()
            node.wait()
        cluster.shutdown()


def test_nodes_that_do_not_reach_the_bucket_are_named(no_ray: None, s3: S3Server, s3_root: UPath) -> None:
    """One node has no credentials, another one has no endpoint and asks Amazon; the head reaches the bucket."""
    anonymous = {name: value for name, value in os.environ.items() if "_ACCESS_KEY" not in name}
    elsewhere = {name: value for name, value in os.environ.items() if name != "AWS_ENDPOINT_URL"}
    command = ["bash", "-c", "exec ray start --address=$ADDRESS --num-cpus=1 --block"]
    with more_nodes(command, anonymous, elsewhere):
        with pytest.raises(UserError) as refused, ray_session(folder=s3_root):
            pass
        assert list_files(s3_root) == {}
    node = r"\S+ \((?:there are no credentials[^()]*|[^()]*amazonaws\.com[^()]*)\)"
    line = rf"s3://bucket/\S+ can't be used on {node}, {node}; .*set AWS_ACCESS_KEY_ID.* on every node .*"
    assert re.fullmatch(line, str(refused.value)), str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_bucket_that_this_machine_does_not_reach_is_one_line(s3_root: UPath, monkeypatch) -> None:
    recipe = replace(sandbox(), root="s3://missing/runs")
    with (
        pytest.raises(UserError, match=r"missing/runs/sandbox can't be used \(the bucket does not exist\); .*AWS_ENDP"),
        only_writer(recipe),
    ):
        pass
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    forget_clients()
    with (
        pytest.raises(UserError, match=r"can't be used \(there are no credentials"),
        only_writer(replace(recipe, root=str(s3_root))),
    ):
        pass


def test_a_store_that_does_not_answer_is_one_line() -> None:
    """Both clients, in this process and in a worker's error."""
    with reach("http://127.0.0.1:9"):
        path = storage_path("s3://bucket/runs")
        system, name = arrow_file(path, 1)
        line = r"the object store can't be used \(.*\): .*run the same command to continue"
        for read in (lambda: obstore.get(*object_store(path, 1)), lambda: system.open_input_file(name)):
            with pytest.raises((BaseError, OSError)) as failed:
                read()
            stored = pickle.loads(pickle.dumps(failed.value))
            for error in (failed.value, RayTaskError("task", "traceback", stored).as_instanceof_cause()):
                assert re.fullmatch(line, line_of(error))
