"""The cluster of the drills: an S3 server and three nodes in namespaces, which are used by jobs/submit.sh only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import obstore
from namespaces import FAST_CHECKS, HERE, RAY, Node, wait_for
from ray._raylet import GcsClient
from s3_server import BUCKET, environment_of, s3_server

from pipelines.cli import parse
from vgs_ray.config import Recipe
from vgs_ray.data.storage import list_files, object_store

ROOT = Path(__file__).parents[1]
SCRIPTED = ROOT / "bench/scripted_command.py"
SHARED = "--object-store-memory=100000000 --disable-usage-stats"
DISK = "500m"
HEAD = "--head --port=6379 --num-cpus=0 --include-dashboard=true --dashboard-host=0.0.0.0"
OPTIONS = (
    "--clean.limit 400 --clean.validation 30 --clean.test 10 --roll-in.engine.max-num-seqs 16 --roll-out.engine.max-num-seqs 16 "
    "--verify.workers 2 --train.steps 16 --train.batch-size 16 --train.checkpoint-every 4 --train.validate-every 8 "
    "--train.min-workers 1 --train.cpus-per-worker 1.5 --evaluate.limit 40 --evaluate.samples 8 --evaluate.beam.groups 4 "
    "--evaluate.budgets 4 8 --evaluate.bootstrap 200"
).split()
"""Of recipe `sandbox`: a stage takes seconds, and each node has one of the two training workers."""


@contextmanager
def cluster(folder: Path, scripted: bool = True) -> Iterator[Cluster]:
    """Start the S3 server and the nodes, and end them after the block. `folder` may have the objects of an earlier server."""
    (folder / "s3").mkdir(exist_ok=True)
    with s3_server(folder / "s3", HERE) as server:
        started = Cluster(folder, server.endpoint, scripted)
        try:
            yield started
        finally:
            for node in (started.head, *started.workers):
                node.kill()


class Cluster:
    """Three nodes: a head without CPUs for work, and two nodes that work. The environment has Ray's token.

    Args:
        folder: for logs, on this machine only.
        endpoint: of the S3 server.
        scripted: run commands with scripted engines.
    """

    def __init__(self, folder: Path, endpoint: str, scripted: bool) -> None:
        token = {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_", "VGS_"))}
        self.rows_made = folder / "rows"
        self._environment = clean | environment_of(endpoint) | token | FAST_CHECKS
        self._environment["VGS_DRILL_LOG"] = str(self.rows_made)
        self._environment["PATH"] = f"{Path(RAY).parent}:{os.environ['PATH']}"  # of `env python` in a job
        os.environ.update(environment_of(endpoint))
        self._folder, self._number = folder, 0
        self._scripted = [str(SCRIPTED)] if scripted else []
        self.head = self._node(HEAD).start()
        self.workers: list[Node] = []
        wait_for(lambda: self.alive(), "the head")
        self.heal()

    def _node(self, options: str) -> Node:
        self._number += 1
        return Node(self._number, f"{options} {SHARED}", self._folder, self._environment, DISK)

    def join(self) -> Node:
        """Start one more node that works."""
        self.workers.append(self._node(f"--address={self.head.address}:6379 --num-cpus=2").start())
        return self.workers[-1]

    def heal(self) -> None:
        """Let others join in place of the worker nodes that end, until Ray has three nodes."""

        def is_whole() -> bool:
            self.workers = [node for node in self.workers if not node.has_ended()]
            while len(self.workers) < 2:
                self.join()
            return len(self.alive()) == 3

        wait_for(is_whole, "three nodes")

    def alive(self) -> list[str]:
        """The addresses of the nodes that Ray believes to be alive; none if the head does not answer."""
        try:
            nodes = GcsClient(address=f"{self.head.address}:6379").get_all_node_info(timeout=2).values()
        except Exception:  # Ray has several classes for it
            return []
        return [node.node_manager_address for node in nodes if node.state == 0]

    def submit(self, command: str, run: str) -> subprocess.Popen[bytes]:
        """Start jobs/submit.sh with a command of recipe `sandbox`; its output is appended to a file of the run."""
        environment = self._environment | {
            "RAY_API_SERVER_ADDRESS": f"http://{self.head.address}:8265",
            "VGS_ROOT": f"s3://{BUCKET}/runs",
            "VGS_PYTHON": self._scripted[0] if self._scripted else "python",
        }
        with self.output(run).open("ab") as log:
            return subprocess.Popen(
                [ROOT / "jobs/submit.sh", command, "sandbox", "--run-name", run, *OPTIONS],
                env=environment, stdout=log, stderr=log,
            )  # fmt: skip

    def run_here(self, command: str, run: str) -> subprocess.Popen[bytes]:
        """Start a command beside the cluster, with a Ray of its own."""
        with self.output(run).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *self._scripted, "-m", f"pipelines.{command}", "sandbox", "--root", f"s3://{BUCKET}/runs",
                 "--run-name", run, *OPTIONS],
                cwd=ROOT, env=self._environment, stdout=log, stderr=log,
            )  # fmt: skip

    def output(self, run: str) -> Path:
        return self._folder / f"{run}.out"

    def recipe(self, run: str) -> Recipe:
        return parse("bench", ["sandbox", "--root", f"s3://{BUCKET}/runs", "--run-name", run, *OPTIONS])

    def copy_stages(self, source: Recipe, target: Recipe, stages: list[str]) -> None:
        """Give a run the finished stages of another one."""
        for stage in stages:
            folder, other = source.stage_folder(stage), target.stage_folder(stage)
            for name in list_files(folder):
                store, key = object_store(folder / name)
                obstore.copy(store, key, object_store(other / name)[1])
