"""What killed processes and interrupted stages leave on a node's disk is removed, and what is in use stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from upath import UPath

from pipelines.tables.node_store import NodeStore
from vgs_ray.data import node_disk
from vgs_ray.data.files import atomic_file
from vgs_ray.data.node_disk import node_folder, node_root, remove_unused, temporary_folder
from vgs_ray.models import copies

PUBLISH = """
import sys, time
from vgs_ray.data.files import atomic_file
from vgs_ray.data.storage import storage_path
with atomic_file(storage_path("s3://bucket/part")) as temporary:
    temporary.write_text("large")
    print(temporary, flush=True)
    time.sleep(600)
"""
STORE = """
import sys, time
from pipelines.tables.node_store import NodeStore
def fill(folder):
    folder.mkdir()
    (folder / "tokens").write_text("large")
print(NodeStore(sys.argv[1], ()).open(fill), flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(node_disk.tempfile, "tempdir", str(tmp_path))
    return tmp_path


class Started:
    """A process that keeps a folder of this node, which it names in its first line."""

    def __init__(self, code: str, disk: Path, *arguments: str) -> None:
        environment = os.environ | {"TMPDIR": str(disk), "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", code, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout
        self.path = Path(self.process.stdout.readline().strip())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def started(disk: Path) -> Iterator[list[Started]]:
    processes: list[Started] = []
    yield processes
    for each in processes:
        each.kill()


def contents() -> set[Path]:
    return {path for path in node_root().iterdir() if not path.name.startswith(".")}


def fill(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "tokens").write_text("other")


def test_a_killed_publisher_leaves_nothing_after_the_next_one(
    disk: Path, started: list[Started], s3_root: UPath
) -> None:
    killed, alive = (Started(PUBLISH, disk) for _ in range(2))
    started += [killed, alive]
    killed.kill()
    with atomic_file(s3_root / "part") as temporary:
        assert contents() == {alive.path.parent, temporary.parent}
        temporary.write_text("content")
    assert (s3_root / "part").read_text() == "content"
    assert alive.path.read_text() == "large"
    assert contents() == {alive.path.parent}
    alive.kill()
    with temporary_folder() as folder:
        assert contents() == {folder}
    assert not list(node_root().iterdir())


def test_a_store_whose_processes_are_dead_is_removed_by_the_next_store(disk: Path, started: list[Started]) -> None:
    killed, alive = (Started(STORE, disk, key) for key in ("killed", "alive"))
    started += [killed, alive]
    killed.kill()
    with temporary_folder():  # writes of other stages keep the store of an interrupted one
        assert {killed.path, alive.path} < contents()
    own = NodeStore("own", ()).open(fill)
    assert contents() == {alive.path, own}
    assert NodeStore("alive", ()).open(lambda folder: None) == alive.path
    assert (alive.path / "tokens").read_text() == "large"
    node_disk.remove_node_folder(own)
    assert NodeStore("own", ()).open(fill) == own == node_folder("own")
    remove_unused(node_root())
    assert (own / "tokens").exists(), "it is in use again"


def test_the_store_of_an_interrupted_stage_is_continued(disk: Path, started: list[Started]) -> None:
    started.append(Started(STORE, disk, "same"))
    started[0].kill()
    again = NodeStore("same", ()).open(lambda folder: None)
    assert again == started[0].path
    assert (again / "tokens").read_text() == "large"


def test_models_that_nobody_has_used_for_a_day_are_removed(s3_root: UPath, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fetch = "import sys; from vgs_ray.models.folder import local_folder; print(local_folder(sys.argv[1]))"
    for name in ("old", "recent", "new"):
        (s3_root / name / "config.json").write_text("{}")
    old, recent = (Started(fetch, tmp_path, str(s3_root / name)) for name in ("old", "recent"))
    for each in (old, recent):
        each.kill()
    long_ago = time.time() - copies.KEPT_S - 60
    os.utime(old.path.with_name(f".{old.path.name}.lock"), (long_ago, long_ago))
    new = copies.cached_copy(s3_root / "new")
    assert {path for path in new.parent.iterdir() if path.is_dir()} == {recent.path, new}
