"""Whole runs of the sandbox at a small size, as commands that tests kill, and the comparison of their tables."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from pipelines.cli import parse
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Recipe
from vgs_ray.data.storage import list_files

SMALL = shlex.split(
    "--clean.limit 160 --clean.validation 14 --clean.test 10 --roll-out.whole --train.steps 16 --train.batch-size 16 "
    "--train.checkpoint-every 4 --train.validate-every 8 --evaluate.limit 8 --evaluate.samples 8 --evaluate.beam.groups 4 "
    "--evaluate.budgets 4 8 --evaluate.bootstrap 200"
)
COMPARED = {
    "clean": ["problem_id", "problem", "answer", "split"],
    "roll_in": ["roll_in_id", "problem_id", "seed", "tokens", "finish_reason"],
    "roll_out": ["roll_out_id", "roll_in_id", "cut", "seed", "tokens", "finish_reason"],
    "verify": ["roll_out_id", "answer", "outcome", "reason"],
    "label": ["roll_out_id", "label", "split"],
    "evaluate": ["search_id"],
}
"""Columns that are the same in every run of a recipe, by the stage of the table."""
LEFT = ("_parts", "/.attempts", ".shared", "_probe", "_lease", ".tmp")
"""What a finished run on an object store has in no name."""
LIMIT_S = 1200.0

Run = subprocess.Popen[str]


def recipe_in(root: object, *extra: str) -> Recipe:
    return parse("pipelines.run", ["sandbox", "--root", str(root), *SMALL, *extra])


def start(root: object, *extra: str, environment: Mapping[str, str] | None = None) -> Run:
    """Start the command of a whole run in a process group of its own, by default in the environment of this process."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.run", "sandbox", "--root", str(root), *SMALL, *extra],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=environment,
    )  # fmt: skip


def finish(run: Run) -> str:
    """What a run prints until it ends."""
    output, _ = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 0, output
    return output


def wait(ready: Callable[[], Any], run: Run) -> Any:
    """Wait for a moment of a run, and return what `ready` found."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := ready()):
        assert time.monotonic() < deadline
        assert run.poll() is None, f"the run has ended: {run.communicate()[0]}"
        time.sleep(0.05)
    return found


def has_file(recipe: Recipe, stage: str, start: str, end: str = "") -> Callable[[], bool]:
    """Whether the folder of a stage has a file whose name starts and ends so."""
    folder = recipe.stage_folder(stage)
    return lambda: any(name.startswith(start) and name.endswith(end) for name in list_files(folder))


def kill(run: Run, recipe: Recipe, stage: str) -> None:
    """SIGKILL a run in a stage."""
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert not (recipe.stage_folder(stage) / "_stage.json").exists(), f"{stage} was killed too late to show anything"


def rows(recipe: Recipe, stage: str) -> pa.Table:
    """The columns to compare, sorted by id."""
    columns = COMPARED[stage]
    return stage_table(recipe, stage).read(columns).sort_by(columns[0]).combine_chunks()
