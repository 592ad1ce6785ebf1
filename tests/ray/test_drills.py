"""Faults of machines and networks, on nodes in network and PID namespaces without a common folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(program: str, *arguments: str, seconds: float) -> str:
    """What a program prints that runs in namespaces. If it takes longer, all its processes are killed."""
    if subprocess.run(["unshare", "--net", "--pid", "--fork", "true"], capture_output=True).returncode:
        pytest.skip("namespaces can't be made here (needs Linux and root)")
    done = subprocess.run(
        [sys.executable, str(ROOT / program), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "bench", ROOT / "tests/support")))},
        capture_output=True, text=True, check=False, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_of_two_commands_one_publishes_although_the_network_of_the_other_was_cut() -> None:
    output = run("tests/support/cut_commands.py", seconds=200)
    assert "exit codes (1, 0)" in output
    assert output.endswith("the table is right\n")


@pytest.mark.slow  # ten minutes: three nodes, all stages up to roll_out, and four tries
@pytest.mark.timeout(1800)
def test_lost_nodes_networks_and_heads_lose_and_double_no_row(no_ray: None) -> None:
    faults = ["node lost", "network cut", "head lost", "spot notice"]
    output = run("bench/drills.py", "--stage", "roll_out", "--fault", *faults, seconds=1700)
    for fault in faults:
        assert f"| {fault} | `roll_out` |" in output
