"""Programs that put themselves into Linux namespaces, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_isolated(program: str, *arguments: str, seconds: float) -> str:
    """What a program prints that calls `namespaces.in_namespaces`. Where that is not possible, the test is skipped.

    If it takes longer than `seconds`, all its processes are killed.
    """
    if subprocess.run(["unshare", "--net", "--pid", "--fork", "true"], capture_output=True).returncode:
        pytest.skip("namespaces can't be made here (needs Linux and root)")
    done = subprocess.run(
        [sys.executable, str(ROOT / program), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "bench", ROOT / "tests/support")))},
        capture_output=True, text=True, check=False, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
