"""The stages without an engine at 25k, 250k and 2.5M roll-outs: python bench/scale.py --rows 25000 250000 2500000

Out for each stage and size: rows/s, bytes a row, files written, files opened, peak memory, and whether time grows as the rows.
`publish` copies the parts of all tables to large files; `values` is stage label with kind token_values; `store` is the copy that
a node makes before it trains, and `batch` is one worker of 128 up to the micro-batches of its first step. Memory is the
proportional set size of this process and all below it, so that memory which they share (Ray's object store) counts once: of all
together, and of the largest.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import ray
from synthetic import RESPONSES, publish_run, recipe_of, write_run

from pipelines import export, label, train, verify
from pipelines.session import _quiet_ray_data
from pipelines.tables.node_store import NodeStore
from pipelines.tables.stage_table import stage_table
from pipelines.tables.token_store import open_tokens, token_store
from vgs_ray.config import Label, Recipe
from vgs_ray.data.node_disk import node_folder
from vgs_ray.value.training.batches import Batches
from vgs_ray.value.training.loader import open_splits
from vgs_ray.value.training.parallel import Worker
from vgs_ray.value.training.throughput import TrainingFlops

OBJECT_STORE = 2**30
TRAIN_WORKERS = 128
LIMIT_GIB = 8.0
TOLERANCE = 1.25  # time may grow by so much more than rows and still count as linear


class Measured(NamedTuple):
    stage: str
    rows: int
    seconds: float
    written: int
    files: int
    opened: int
    peak: int
    largest: int


@contextmanager
def repeated(work: Callable[[], None], every_s: float) -> Iterator[None]:
    """Call a function again and again in a thread while the body runs."""
    stop = threading.Event()

    def follow() -> None:
        work()
        while not stop.wait(every_s):
            work()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Memory:
    """Peak memory of this process and all that descend from it, together and of the largest, over all samples."""

    def __init__(self) -> None:
        self.peak = self.largest = 0

    def sample(self) -> None:
        sizes = [proportional_bytes(process) for process in descendants(os.getpid())]
        self.peak, self.largest = max(self.peak, sum(sizes)), max(self.largest, *sizes)


class Opens:
    """How often Parquet files below a folder were opened since this was made, as inotify counts."""

    IN_OPEN, IN_NONBLOCK, HEADER = 0x20, 0o4000, 16

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None)
        self.count, self._queue = 0, libc.inotify_init1(self.IN_NONBLOCK)
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                libc.inotify_add_watch(self._queue, bytes(path), self.IN_OPEN)

    def close(self) -> None:
        os.close(self._queue)

    def read(self) -> None:
        """Count what has happened; the queue of the system is limited."""
        with contextlib.suppress(BlockingIOError):
            while events := os.read(self._queue, 2**20):
                self._add(events)

    def _add(self, events: bytes) -> None:
        at = 0
        while at < len(events):
            length = int.from_bytes(events[at + 12 : at + 16], "little")
            self.count += events[at + self.HEADER : at + self.HEADER + length].rstrip(b"\0").endswith(b".parquet")
            at += self.HEADER + length


def descendants(root: int) -> set[int]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may have ended
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found, grew = {root}, True
    while grew:
        below = {process for process, parent in parents.items() if parent in found}
        grew = not below <= found
        found |= below
    return found


def proportional_bytes(process: int) -> int:
    """Memory of a process, each shared page divided by the number of those that share it; 0 once it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


@contextmanager
def local_ray() -> Iterator[None]:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        address="local", include_dashboard=False, object_store_memory=OBJECT_STORE, log_to_driver=False,
        logging_level=logging.ERROR,
    )  # fmt: skip
    _quiet_ray_data()
    try:
        yield
    finally:
        ray.shutdown()


def measure(stage: str, rows: int, work: Callable[[], object], folder: Path, run: Path) -> Measured:
    begin, quiet = time.perf_counter(), io.StringIO()
    memory = Memory()
    with (
        contextlib.closing(Opens(run)) as opens,
        repeated(memory.sample, 0.5),
        repeated(opens.read, 0.05),
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
    ):
        work()
    seconds = time.perf_counter() - begin
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.suffix in {".parquet", ".arrow"}]
    found = Measured(stage, rows, seconds, sum(sizes), len(sizes), opens.count, memory.peak, memory.largest)
    show(found)
    return found


def show(found: Measured) -> None:
    print(
        f"{found.rows:>10,} {found.stage:<9}{found.seconds:>9.1f} s{found.rows / found.seconds:>10,.0f} rows/s"
        f"{found.written / found.rows:>9,.0f} B/row{found.files:>9,} files{found.opened:>11,} opened"
        f"{found.peak / 2**30:>8.2f} GiB{found.largest / 2**30:>8.2f} GiB largest",
        flush=True,
    )


def with_values(recipe: Recipe) -> Recipe:
    """A run beside it that labels the same tables with token values."""
    beside = replace(recipe, run_name="values", label=Label(kind="token_values", hopeless_share=0.0))
    beside.folder.mkdir(exist_ok=True)
    for stage in ("clean", "roll_in", "roll_out", "verify"):
        (beside.folder / stage).symlink_to(recipe.folder / stage)
    return beside


def run_size(rows: int, root: Path, mean_tokens: int, stages: list[str]) -> list[Measured]:
    """The stages at one size; everything is removed afterwards."""
    problems = round(rows / RESPONSES)
    count, recipe = problems * RESPONSES, recipe_of(root, mean_tokens)
    last = "roll_out" if "verify" in stages else "verify"
    run = Path(recipe.folder)
    steps = {
        "generate": lambda: write_run(recipe, problems, mean_tokens, last),
        "publish": lambda: publish_run(recipe, last),
    }
    found = [measure(name, count, step, run, run) for name, step in steps.items()]
    for stage in stages:
        mine = with_values(recipe) if stage == "values" else recipe
        name = "label" if stage == "values" else stage
        found.append(measure(stage, count, partial(RUNS[name], mine), Path(mine.folder) / name, run))
        check(name, mine, count)
    return found + load(recipe, count, run) if "label" in stages else found


def load(recipe: Recipe, count: int, run: Path) -> list[Measured]:
    """The store of a node, and the first micro-batches of a worker."""
    store = token_store(recipe)
    folder = node_folder(store.key)
    found = [
        measure("store", count, partial(train.prepare, recipe, store), folder, run),
        measure("batch", count, lambda: ray.get(first_batch.remote(recipe, store)), folder, run),
    ]
    store.remove()
    return found


@ray.remote(num_cpus=1)
def first_batch(recipe: Recipe, store: NodeStore) -> None:
    """What a worker does between the start of its process and its first forward pass, without the model."""
    splits = open_splits(open_tokens(store), recipe.resolved_train)
    batches = Batches(splits[0], recipe.resolved_train, 0, Worker(world=TRAIN_WORKERS), TrainingFlops(1.0, 0.0))
    assert list(batches.micro_batches(batches.batch(0)))
    rows, labels = sum(map(len, splits)), stage_table(recipe, "label").count_rows()
    assert rows == labels, f"the store has {rows} of {labels} labels"


def check(stage: str, recipe: Recipe, count: int) -> None:
    """No row is lost: each has an outcome, and a label where that is known and its problem has hope."""
    manifest = json.loads((recipe.folder / stage / "_stage.json").read_text())["counts"]
    rows = manifest["responses"] if stage == "export" else manifest["rows"]
    if stage == "label":
        rows += sum(manifest["left_out"].values())
    expected = stage_table(recipe, "label").count_rows() if stage == "export" else count
    assert rows == expected, f"{stage} has {rows} of {expected} rows"


RUNS: dict[str, Callable[[Recipe], None]] = {"verify": verify.run, "label": label.run, "export": export.run}
STAGES = ("verify", "label", "values", "export")


def growth(found: list[Measured]) -> None:
    """Whether time grows as the rows, for each stage from each size to the next."""
    for stage in dict.fromkeys(each.stage for each in found):
        sizes = [each for each in found if each.stage == stage]
        for small, large in pairwise(sizes):
            rows, seconds = large.rows / small.rows, large.seconds / small.seconds
            verdict = "linear or better" if seconds <= TOLERANCE * rows else "MORE THAN LINEAR"
            print(f"{stage:<9} {small.rows:,} to {large.rows:,}: {rows:.1f} x rows, {seconds:.1f} x time: {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[25_000, 250_000])
    parser.add_argument("--mean-tokens", type=int, default=200, help="mean completion; a real one has about 5,800")
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, default=list(STAGES), help="without verify, outcomes are made up too"
    )
    parser.add_argument("--folder", default=None, help="where data lies meanwhile; default: the temporary folder")
    options = parser.parse_args()
    print(f"completions of {options.mean_tokens} tokens in the mean (a real run: about 5,800)")
    found: list[Measured] = []
    with local_ray():
        for rows in options.rows:
            with tempfile.TemporaryDirectory(dir=options.folder) as root:
                found += run_size(rows, Path(root), options.mean_tokens, options.stages)
    growth(found)
    peak = max(each.peak for each in found) / 2**30
    print(f"peak memory of all processes: {peak:.2f} GiB ({'under' if peak < LIMIT_GIB else 'OVER'} {LIMIT_GIB:g} GiB)")


if __name__ == "__main__":
    main()
