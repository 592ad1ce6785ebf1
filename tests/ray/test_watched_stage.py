"""A real stage with an engine on an S3 root, watched from this process: it runs, its command is killed, and it continues."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from test_restart import CPU, CUTS, ROLL_INS, TOO_LONG, with_roll_ins
from upath import UPath

from pipelines.progress import error_counts
from pipelines.run_status import RunStatus, StageStatus
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Recipe

OPTIONS = {
    "--roll-in.sampling.max-tokens": 40, "--roll-in.engine.max-model-len": 64, "--roll-out.sampling.max-tokens": 40,
    "--roll-out.engine.max-model-len": 64, "--roll-out.cuts": CUTS, "--roll-out.resources.num-cpus": 0.25,
    "--roll-out.max-error-share": 0.5,
}  # fmt: skip
LIMIT_S = 600.0


@contextmanager
def started(root: UPath, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command of the stage, with its output in a file as in a job. It does not outlive the block."""
    options = [str(word) for option in OPTIONS.items() for word in option]
    command = [sys.executable, "-m", "pipelines.roll_out", "sandbox", "--root", str(root), *options]
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=Path(__file__).parents[2])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def roll_out(recipe: Recipe) -> StageStatus:
    [found] = [each for each in RunStatus(recipe).read() if each.stage == "roll_out"]
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_watched_stage_is_killed_and_continues(no_ray: None, s3_root: UPath, tmp_path: Path) -> None:
    recipe = with_roll_ins(s3_root, replace(CPU, num_cpus=0.25), 0.5)
    assert roll_out(recipe).state == "not started"
    log = tmp_path / "log"
    deadline = time.monotonic() + LIMIT_S
    with started(s3_root, log) as first:
        while not (now := roll_out(recipe)).replicas:
            assert now.state in ("not started", "starting", "running")
            assert time.monotonic() < deadline
            assert first.poll() is None, log.read_text()
            time.sleep(0.5)
        assert (now.state, now.owner["process"], now.expected) == ("running", first.pid, ROLL_INS * CUTS)
    # The block ends with SIGKILL.
    assert (dead := roll_out(recipe)).state == "dead"
    assert dead.rows == stage_table(recipe, "roll_out").count_rows()
    with started(s3_root, log) as second:
        assert second.wait(LIMIT_S) == 0, log.read_text()
    done, out = roll_out(recipe), stage_table(recipe, "roll_out")
    assert (done.state, done.rows) == ("complete", out.count_rows())
    assert done.errors == error_counts(out)
    assert sum(done.errors.values()) == TOO_LONG * CUTS
    assert done.active_s
    assert dead.active_s
    assert done.active_s > dead.active_s
    times = re.findall(r"^20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ roll_out ", log.read_text(), re.MULTILINE)
    [*_, last] = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert times
    assert (last["run"], last["stage"], last["rows"]) == ("sandbox", "roll_out", ROLL_INS * CUTS)
    assert last["errors"] == TOO_LONG * CUTS
