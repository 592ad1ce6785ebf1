"""A command ends within ten seconds after its Ray has died, and says why."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from pipelines.serving.ingress import free_ports
from pipelines.serving.ray_watch import accepts, lives

LIMIT_S = 10.0
ENDPOINT = """
import sys
from ray import serve
import pipelines.serve as command
from pipelines.cli import parse
from vgs_ray.models import RANDOM

@serve.deployment(name="search")
class WithoutEngines:
    async def __call__(self, request):
        return "ready"

command.application = lambda *_: WithoutEngines.bind()
command.run(parse("pipelines.serve", ["sandbox", "--serve.value-model", RANDOM, "--serve.port", sys.argv[1]]))
"""
WAITS = """
import time
from pipelines.serving.ray_watch import ends_with_ray
from pipelines.session import ray_session
with ray_session(), ends_with_ray("the test"):
    print("serving", flush=True)
    time.sleep(300)
"""


def errors_after_kill(part: str, script: str, *arguments: str) -> str:
    """Standard error of a script after a process of its Ray has been killed."""
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        try:
            next(line for line in process.stdout if line.startswith("serving"))
            children = psutil.Process(process.pid).children(recursive=True)
            [victim] = [child for child in children if child.name() == part]
            victim.kill()
            assert process.wait(LIMIT_S) == 1
            errors = process.stderr.read()
            assert not psutil.wait_procs(children, timeout=LIMIT_S)[1]
        finally:
            process.kill()
    return errors


@pytest.mark.timeout(200)
def test_an_endpoint_ends_when_the_control_store_of_its_ray_dies() -> None:
    [port] = free_ports(1)
    errors = errors_after_kill("gcs_server", ENDPOINT, str(port))
    [line] = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "Ray has died: its control store (GCS) at " in line
    assert "the endpoint has ended with it; start it again" in line
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False)


@pytest.mark.timeout(120)
def test_a_command_ends_when_the_raylet_of_its_machine_dies() -> None:
    errors = errors_after_kill("raylet", WAITS)
    assert "error: Ray has died: the raylet of this machine does not answer, and the test has ended with it" in errors


def test_a_busy_process_does_not_count_as_dead() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # never accepts
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert accepts(address)
    assert not accepts(address)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        child = psutil.Process(process.pid)
        child.suspend()
        assert lives(child)
        process.kill()
        deadline = time.monotonic() + LIMIT_S
        while lives(child):  # a zombie until its parent waits for it
            assert time.monotonic() < deadline
            time.sleep(0.01)
