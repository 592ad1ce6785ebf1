"""A whole run on an S3 server, by nodes without a common folder, killed and restarted: its tables equal those of a local run.

The nodes are raylets, of which the second one has a mount namespace with an empty /tmp and a home folder in it. Requests go
through a proxy that fails one in 20.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.dataset as pads
import pytest
import ray
from datasets import load_dataset
from flaky_proxy import flaky_proxy
from s3_server import BUCKET, SECRET, S3Server, free_port, reach
from upath import UPath

from pipelines.cli import parse
from pipelines.tables.manifest import read_manifest
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Recipe
from vgs_ray.data.files import download_folder
from vgs_ray.data.parquet import arrow_file
from vgs_ray.data.storage import list_files

SMALL = shlex.split(
    "--clean.limit 160 --clean.validation 14 --clean.test 10 --roll-out.whole --train.steps 8 --train.batch-size 16 "
    "--train.checkpoint-every 4 --train.validate-every 4 --evaluate.limit 4 --evaluate.samples 4 --evaluate.beam.groups 2 "
    "--evaluate.budgets 2 4 --evaluate.bootstrap 200"
)
STAGES = ("clean", "roll_in", "roll_out", "verify", "label", "train", "evaluate")
COMPARED = {
    "clean": ["problem_id", "problem", "answer", "split"],
    "roll_in": ["roll_in_id", "problem_id", "seed", "tokens", "finish_reason"],
    "roll_out": ["roll_out_id", "roll_in_id", "cut", "seed", "tokens", "finish_reason"],
    "verify": ["roll_out_id", "answer", "outcome", "reason"],
    "label": ["roll_out_id", "label", "split"],
    "evaluate": ["search_id"],
}
RUN = [sys.executable, "-m", "pipelines.run", "sandbox", *SMALL]
RAY = str(Path(ray.__file__).parents[4] / "bin" / "ray")
OUTAGE_S, LIMIT_S = 8.0, 1200.0
SECOND_NODE = (
    "mount -t tmpfs none /tmp && mkdir -p /tmp/home && HOME=/tmp/home exec {ray} start --address={address} --num-cpus=2 "
    "--object-store-memory=200000000 --block"
)


def wait(ready: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not ready():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, f"the run has ended: {process.communicate()[0]}"
        time.sleep(0.1)


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


def workers(process: int, name: str) -> list[psutil.Process]:
    """Ray's workers below a process that run an actor of this class."""
    found = []
    for each in psutil.Process(process).children(recursive=True):
        try:
            if name in " ".join(each.cmdline()):
                found.append(each)
        except psutil.NoSuchProcess:
            continue
    return found


def start(root: str, address: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*RUN, "--root", root], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "RAY_ADDRESS": address},
    )  # fmt: skip


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, no_session: None) -> Recipe:
    """The same run on a disk, without failures."""
    root = str(tmp_path_factory.mktemp("local"))
    done = subprocess.run([*RUN, "--root", root], capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return parse("pipelines.run", ["sandbox", "--root", root, *SMALL])


@pytest.fixture(scope="module")
def remote(s3: S3Server, no_session: None) -> Iterator[tuple[Recipe, str]]:
    """The run on the S3 server: a worker, a node, the server and the driver are killed."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("a node can't have a mount namespace here (needs root)")
    port, root = free_port(), f"s3://{BUCKET}/runs"
    recipe = parse("pipelines.run", ["sandbox", "--root", root, *SMALL])
    parts = recipe.stage_folder("roll_out") / "_parts"
    with (
        flaky_proxy(s3.endpoint, port) as proxy,
        reach(f"http://127.0.0.1:{port}"),
        one_token(),
        head(free_port()) as (address, first_node),
        ended(second_node(address)) as second,
    ):
        first = start(root, address)
        wait(lambda: list_files(recipe.stage_folder("roll_in") / "_parts"), first)
        for worker in (workers(first_node, "SamplingActor") + workers(second.pid, "SamplingActor"))[:1]:
            worker.kill()
        wait(lambda: list_files(parts), first)
        with s3.outage(OUTAGE_S):
            kill_tree(second.pid)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        assert not (recipe.stage_folder("roll_out") / "_stage.json").exists(), "the driver was killed too late"
        with ended(second_node(address)):
            again = start(root, address)
            output, _ = again.communicate(timeout=LIMIT_S)
        assert again.returncode == 0, output
        assert sum(proxy.failed.values()) > 10
        yield recipe, output


def rows(recipe: Recipe, stage: str) -> pa.Table:
    columns = COMPARED[stage]
    return stage_table(recipe, stage).read(columns).sort_by(columns[0])


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
    assert {name.partition("/")[0] for name in names if name.endswith("_stage.json")} == set(STAGES)
    left = ("_parts", "/.attempts", ".shared", "_probe", "_lease")
    assert not [name for name in names if any(each in name for each in left)]
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
