"""The lease of a run's folder, on a disk and on an S3 server, with real processes that are killed and stopped."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from upath import UPath

from pipelines.tables import lease
from vgs_ray.data.storage import is_local

EXPIRES_S = 5.0
HOLD = f"""
import sys, time
from pipelines.tables import lease
from vgs_ray.data.storage import storage_path

lease.RENEW_S, lease.EXPIRES_S, lease.POLL_S = 0.3, {EXPIRES_S}, 0.1
if sys.argv[2] == "apart":
    lease._machine = lambda: "another machine"
with lease.lease(storage_path(sys.argv[1])):
    print("held", flush=True)
    with open(sys.argv[4], "a", buffering=1) as log:
        log.write("begins\\n")
        time.sleep(float(sys.argv[3]))
        log.write("ends\\n")
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(any_root: UPath, tmp_path: Path) -> Iterator[Start]:
    """Starts a process that holds the lease of a folder for some seconds."""
    if is_local(any_root):
        any_root.mkdir(exist_ok=True)
    started: list[subprocess.Popen[str]] = []

    def hold(seconds: float = 600.0, machine: str = "here") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(any_root), machine, str(seconds), str(tmp_path / "log")]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("machine", ["here", "apart"])
def test_the_second_process_names_the_first_and_follows_a_killed_one(start: Start, machine: str) -> None:
    first = start()
    assert next_line(first) == "held"
    second = start(machine=machine)
    line = next_line(second)
    found = re.search(r"process (\d+) on (\S+) is working on \S+ since (.*): waiting for it to end", line)
    assert found, line
    assert found[1] == str(first.pid)
    assert found[2] == socket.gethostname()
    assert abs((datetime.now(UTC) - datetime.fromisoformat(found[3])).total_seconds()) < 60
    first.kill()
    first.wait()
    lines = [next_line(second), ""]
    if "has ended, or has not renewed" in lines[0]:
        lines[1] = next_line(second)
    assert "held" in lines


@pytest.mark.timeout(120)
def test_a_live_owner_keeps_the_lease_until_it_ends(start: Start, any_root: UPath, tmp_path: Path) -> None:
    first = start(1.0 if is_local(any_root) else 2 * EXPIRES_S)  # on a disk, a lock does not expire
    assert next_line(first) == "held"
    second = start(0.0, machine="apart")
    assert "is working on" in next_line(second)
    assert next_line(second) == "held"
    assert second.wait() == first.wait() == 0
    assert (tmp_path / "log").read_text().split() == ["begins", "ends"] * 2


@pytest.mark.timeout(120)
def test_of_many_processes_one_works_at_a_time(start: Start, tmp_path: Path) -> None:
    processes = [start(0.3) for _ in range(5)]
    assert [process.wait() for process in processes] == [0] * 5
    assert (tmp_path / "log").read_text().split() == ["begins", "ends"] * 5


@pytest.mark.timeout(120)
def test_an_owner_that_was_stopped_for_too_long_loses_the_lease_and_ends(start: Start, any_root: UPath) -> None:
    if is_local(any_root):
        pytest.skip("the operating system keeps the lock of a stopped process")
    first = start()
    assert next_line(first) == "held"
    first.send_signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    second = start()
    assert "is working on" in next_line(second)
    assert re.search(r"process \d+ on \S+ has ended, or has not renewed its lease for \d+ s", next_line(second))
    assert time.monotonic() - stopped_at > EXPIRES_S
    assert next_line(second) == "held"
    first.send_signal(signal.SIGCONT)
    _, printed = first.communicate(timeout=60)
    assert first.returncode != 0
    assert "another process has taken it over; this process ends, and no committed row is lost" in printed
    held = lease._read(any_root / lease.LEASE)
    assert held
    assert held[0]["process"] == second.pid


def test_a_request_whose_reply_was_lost_is_not_taken_for_another_owner(s3_root: UPath) -> None:
    path, owner = s3_root / lease.LEASE, lease.this_process()
    version = lease._put(path, owner, "create")
    assert version
    assert lease._acquire(path, owner) == version
    renewed = lease._put(path, {**owner, "renewed": 1}, version)
    assert renewed
    assert lease._renewed(path, owner, version) == renewed
    assert lease._put(path, lease.this_process(), renewed)
    assert lease._renewed(path, owner, renewed) is None
