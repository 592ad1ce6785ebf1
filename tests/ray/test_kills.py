"""Workers, raylets and drivers of a two-node cluster are killed while stages run: no row is lost or duplicated."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from early import EARLY

BENCH = Path(__file__).parents[2] / "bench" / "kills.py"


def early_work(folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH), "--kills", "3", "--problems", "200", "--pause", "14"],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.mark.timeout(700)
def test_killed_worker_raylet_and_driver_lose_and_duplicate_no_row() -> None:
    done = EARLY.result(__name__)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"killed a (\w+)", done.stdout)) == {"worker", "raylet", "driver"}
    assert "0 rows are wrong" in done.stdout
