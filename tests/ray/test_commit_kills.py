"""A stage is killed at the failpoints of its commit path: no row is lost or doubled, and every run gives the same table."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from s3_server import BUCKET, S3Server
from upath import UPath

from pipelines.recipes import sandbox
from pipelines.tables.publish import in_this_process
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import committed_ids, stage_table
from vgs_ray.data.schemas import ROLL_OUTS
from vgs_ray.data.storage import is_local

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "bench"))
from scripted_stage import row_of  # noqa: E402

KILLS = 30


def kills(root: str, environment: dict[str, str], count: int) -> str:
    """What the benchmark prints, with the rows of `count` kills."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "commit_kills.py"), "--kills", str(count), "--root", root],
        capture_output=True, text=True, timeout=400, check=False, env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"^(\d+) kills", done.stdout, re.M)[0]) >= count
    return done.stdout


@pytest.mark.timeout(400)
def test_a_killed_actor_generates_no_more_than_its_open_sequences_again() -> None:
    options = ["--actors", "8", "--blocks", "2", "--scale", "50", "--every", "120", "--limit", "1"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "kill_costs.py"), *options],
        capture_output=True, text=True, timeout=300, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"^(\d+) kills .*: ([\d.]+)% of .* about ([\d.]+)% are expected", done.stdout)
    assert found, done.stdout
    assert int(found[1]) >= 2
    assert float(found[2]) < 3 * float(found[3])  # on a busy machine, commits and restarts are late


@pytest.mark.timeout(400)
def test_kills_at_failpoints_lose_and_double_no_row_on_a_disk(tmp_path: Path) -> None:
    assert ": 0 runs are wrong" in kills(str(tmp_path), {}, KILLS)


@pytest.mark.timeout(400)
def test_kills_at_failpoints_lose_and_double_no_row_on_s3(s3: S3Server) -> None:
    assert ": 0 runs are wrong" in kills(f"s3://{BUCKET}/kills", s3.environment, KILLS // 2)


def roll_outs(*ids: str) -> pa.Table:
    return pa.Table.from_pylist([row_of({"roll_out_id": row_id}) for row_id in ids], schema=ROLL_OUTS)


STOPPED = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "bench")!r}]
from scripted_stage import row_of, work
from pathlib import Path
from pipelines.recipes import sandbox
from pipelines.tables.stage_table import stage_table
from dataclasses import replace

recipe = replace(sandbox(), root=sys.argv[1])
work(stage_table(recipe, "roll_out")._replace(writer=sys.argv[2]), [["a", "b", "c"]], Path(sys.argv[3]), 60.0)
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", ["file.before_rename=stop@2", "file.before_upload=stop"])
def test_a_writer_that_was_believed_dead_commits_its_rows_after_all(
    any_root: UPath, point: str, tmp_path: Path
) -> None:
    """It was stopped between the check that it may write and its commit. Meanwhile another command commits the same ids."""
    if is_local(any_root) != ("rename" in point):
        pytest.skip("a point of the other kind of storage")
    recipe = replace(sandbox(), root=str(any_root))
    open_stage(recipe, "roll_out", ())
    table = stage_table(recipe, "roll_out").claim()
    stage = open_stage(recipe, "roll_out", ())  # of the second command, which removes temporary files
    assert stage is not None
    command = [sys.executable, "-c", STOPPED, str(any_root), table.writer, str(tmp_path / "generated")]
    zombie = subprocess.Popen(command, env=os.environ | {"VGS_FAILPOINTS": point})
    _, status = os.waitpid(zombie.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    table = table._replace(writer="").claim()
    table.write_part(roll_outs("b", "c", "d"))
    os.kill(zombie.pid, signal.SIGCONT)
    zombie.wait()
    assert sorted(table.read([table.key])[table.key].to_pylist()) == ["a", "b", "b", "c", "c", "d"]
    assert len(committed_ids(table)) == 4
    table = stage.publish(table, in_this_process)
    stage.close(rows=table.count_rows())
    assert table.read().sort_by(table.key).equals(roll_outs("a", "b", "c", "d"))
