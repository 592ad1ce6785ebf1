"""A whole run on an S3 server, by nodes without a common folder, killed and restarted: its tables equal those of a local run.

The nodes are raylets, of which the second one has a mount namespace with an empty /tmp and a home folder in it. Requests go
through a proxy that fails one in 20.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow.dataset as pads
import pytest
import ray
from datasets import load_dataset
from flaky_proxy import flaky_proxy
from ray_processes import workers
from s3_server import BUCKET, SECRET, S3Server, reach
from upath import UPath
from whole_run import COMPARED, LEFT, LIMIT_S, SMALL, finish, has_file, kill, recipe_in, rows, start, wait

from pipelines.serving.ingress import free_ports
from pipelines.tables.manifest import read_manifest
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Recipe
from vgs_ray.data.files import download_folder
from vgs_ray.data.parquet import arrow_file
from vgs_ray.data.storage import list_files

RAY = str(Path(ray.__file__).parents[4] / "bin" / "ray")
OUTAGE_S = 8.0
SECOND_NODE = (
    "mount -t tmpfs none /tmp && mkdir -p /tmp/home && HOME=/tmp/home exec {ray} start --address={address} --num-cpus=2 "
    "--object-store-memory=200000000 --block"
)


@contextmanager
def one_token() -> Iterator[None]:
    """Ray's token for all nodes, as they have different home folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        yield


@contextmanager
def head(port: int) -> Iterator[tuple[str, int]]:
    """The first node, in a process group of its own. Gives its address and process."""
    address = f"127.0.0.1:{port}"
    command = [
        RAY, "start", "--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=2", "--block",
        "--include-dashboard=false", "--object-store-memory=200000000",
    ]  # fmt: skip
    with ended(
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    ) as node:
        yield address, node.pid


def second_node(address: str) -> subprocess.Popen[bytes]:
    start = SECOND_NODE.format(ray=RAY, address=address)
    return subprocess.Popen(
        ["unshare", "-m", "bash", "-c", start], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        kill_tree(process.pid)
        process.wait()


def kill_tree(process: int) -> None:
    """SIGKILL a process and all that it has started."""
    parent = psutil.Process(process)
    for each in [*parent.children(recursive=True), parent]:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, no_session: None) -> Recipe:
    """The same run on a disk, without failures."""
    root = tmp_path_factory.mktemp("local")
    finish(start(root))
    return recipe_in(root)


@pytest.fixture(scope="module")
def remote(s3: S3Server, no_session: None) -> Iterator[tuple[Recipe, str]]:
    """The run on the S3 server: a worker, a node and the driver are killed, and the server is gone for some seconds."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("a node can't have a mount namespace here (needs root)")
    (port, gcs), root = free_ports(2), f"s3://{BUCKET}/runs-of-nodes"
    recipe = recipe_in(root)
    with (
        flaky_proxy(s3.endpoint, port) as proxy,
        reach(f"http://127.0.0.1:{port}"),
        one_token(),
        head(gcs) as (address, first_node),
        ended(second_node(address)) as second,
    ):
        at_cluster = {**os.environ, "RAY_ADDRESS": address}
        first = start(root, environment=at_cluster)
        wait(has_file(recipe, "roll_in", "_parts/"), first)
        for worker in (workers(first_node, "SamplingActor") + workers(second.pid, "SamplingActor"))[:1]:
            worker.kill()
        wait(has_file(recipe, "roll_out", "_parts/"), first)
        with s3.outage(OUTAGE_S):
            kill_tree(second.pid)
        kill(first, recipe, "roll_out")
        with ended(second_node(address)):
            output = finish(start(root, environment=at_cluster))
        assert proxy.failed.total() > 10
        yield recipe, output


@pytest.mark.slow  # minutes: a local run, and one on S3 that is killed and restarted
@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("stage", COMPARED)
def test_the_tables_equal_those_of_a_local_run(remote: tuple[Recipe, str], local: Recipe, stage: str) -> None:
    found, expected = rows(remote[0], stage), rows(local, stage)
    assert len(found) == len(expected) > 0
    for name in COMPARED[stage]:
        assert found[name].to_pylist() == expected[name].to_pylist(), name


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S)
def test_all_stages_are_complete_and_leave_no_parts(remote: tuple[Recipe, str]) -> None:
    recipe, _ = remote
    names = list_files(recipe.folder)
    assert {name.partition("/")[0] for name in names if name.endswith("_stage.json")} == set(recipe.stages)
    assert not [name for name in names if any(each in name for each in LEFT)]
    assert {"evaluate/report.json", "evaluate/report.md", "train/value_model/config.json"} <= set(names)


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S)
def test_no_file_or_output_contains_the_credentials(remote: tuple[Recipe, str], tmp_path: Path) -> None:
    recipe, output = remote
    assert SECRET not in output
    download_folder(recipe.folder, tmp_path / "run")
    for folder in (tmp_path / "run", Path(output.partition("engine and worker logs: ")[2].partition("\n")[0])):
        for file in [each for each in folder.rglob("*") if each.is_file()]:
            assert SECRET.encode() not in file.read_bytes(), file


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S)
def test_a_copied_run_is_complete_and_plain_parquet(remote: tuple[Recipe, str], tmp_path: Path) -> None:
    """A run is moved from the server to a disk by copying its folder; pyarrow and datasets read its tables on both."""
    recipe, _ = remote
    download_folder(recipe.folder, tmp_path / recipe.folder.name)
    command = [sys.executable, "-m", "pipelines.verify", "sandbox", "--root", str(tmp_path), *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "is complete, skipped" in done.stdout, done.stderr
    folder: UPath = recipe.stage_folder("verify")
    files = [folder / entry["file"] for entry in read_manifest(folder / "_stage.json")["tables"]["verified"]]
    system, _ = arrow_file(folder)
    remote_rows = pads.dataset([arrow_file(file)[1] for file in files], filesystem=system).to_table()
    pattern = str(tmp_path / recipe.folder.name / "verify" / "part-*.parquet")
    local_rows = load_dataset("parquet", data_files=pattern, split="train", cache_dir=str(tmp_path / "cache"))
    assert local_rows.to_list() == remote_rows.to_pylist() == stage_table(recipe, "verify").read().to_pylist()
