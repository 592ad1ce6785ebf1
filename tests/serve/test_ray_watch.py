"""A command whose Ray dies ends within ten seconds, and says why."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from load import sandbox_endpoint

from pipelines.serving.ray_watch import accepts, lives

LIMIT_S = 10.0
WAITS = """
import time
from pipelines.serving.ray_watch import ends_with_ray
from pipelines.session import ray_session
with ray_session(), ends_with_ray("the test"):
    print("serving", flush=True)
    time.sleep(300)
"""


def ends_without(part: str, command: list[str]) -> str:
    """What a command says on standard error once it has begun and a process of its Ray has been killed."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        try:
            next(line for line in process.stdout if line.startswith("serving"))
            below = psutil.Process(process.pid).children(recursive=True)
            [victim] = [each for each in below if each.name() == part]
            victim.kill()
            assert process.wait(LIMIT_S) == 1
            said = process.stderr.read()
            assert not psutil.wait_procs(below, timeout=LIMIT_S)[1]
        finally:
            process.kill()
    return said


@pytest.mark.timeout(200)
def test_an_endpoint_ends_when_the_control_store_of_its_ray_dies(tmp_path: Path) -> None:
    settings = sandbox_endpoint(tmp_path).serve
    options = ["--serve.value-model", settings.value_model, "--serve.port", str(settings.port)]
    said = ends_without("gcs_server", [sys.executable, "-m", "pipelines.serve", "sandbox", *options])
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "Ray has died: its control store (GCS) at " in line
    assert "the endpoint has ended with it; start it again" in line
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{settings.port}/readyz", trust_env=False)


@pytest.mark.timeout(120)
def test_a_command_ends_when_the_raylet_of_its_machine_dies() -> None:
    said = ends_without("raylet", [sys.executable, "-c", WAITS])
    assert "error: Ray has died: the raylet of this machine does not answer, and the test has ended with it" in said


def test_a_process_that_is_busy_is_not_taken_for_dead() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # it never accepts
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert accepts(address)
    assert not accepts(address)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        found = psutil.Process(process.pid)
        found.suspend()
        assert lives(found)
        process.kill()
        deadline = time.monotonic() + LIMIT_S
        while lives(found):  # nobody has waited for it yet
            assert time.monotonic() < deadline
            time.sleep(0.01)
