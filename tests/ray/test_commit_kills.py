"""A stage is killed at the failpoints of its commit path: no row is lost or doubled, and every run gives the same table."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from s3_server import BUCKET, S3Server

ROOT = Path(__file__).parents[2]
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
def test_kills_at_failpoints_lose_and_double_no_row_on_a_disk(tmp_path: Path) -> None:
    assert ": 0 runs are wrong" in kills(str(tmp_path), {}, KILLS)


@pytest.mark.timeout(400)
def test_kills_at_failpoints_lose_and_double_no_row_on_s3(s3: S3Server) -> None:
    assert ": 0 runs are wrong" in kills(f"s3://{BUCKET}/kills", s3.environment, KILLS // 2)
