"""A real S3 server for tests, in a process of its own on a free port. It keeps its objects when it is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from pipelines.serving.ingress import free_ports
from vgs_ray.data import parquet, storage

BUCKET = "bucket"
SECRET = "a-secret-that-no-file-may-contain"
START_S = 180.0
PROGRAM = Path(__file__).with_name("durable_s3.py")


@dataclass
class S3Server:
    """A running server.

    Attributes:
        port: of its URL.
        folder: has its log of requests, from which a new process restores the objects, and its output.
        host: address that it listens on.
    """

    port: int
    folder: Path
    host: str = "127.0.0.1"

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a process reaches the server."""
        return environment_of(self.endpoint)

    def start(self) -> None:
        """Start the process with the objects of the earlier one, and wait until it answers."""
        command = [sys.executable, str(PROGRAM), str(self.port), str(self.folder / "log"), self.host]
        with (self.folder / "output").open("a") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        deadline = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                httpx.put(f"{self.endpoint}/{BUCKET}", timeout=START_S)
                return
            time.sleep(0.1)
        raise AssertionError(f"the S3 server did not start: {(self.folder / 'output').read_text()[-2000:]}")

    def kill(self) -> None:
        """SIGKILL the process. Clients can't connect until `start`."""
        self._process.kill()
        self._process.wait()

    @contextmanager
    def outage(self, seconds: float) -> Iterator[None]:
        """SIGKILL the process at the start of the block. Another one starts so many seconds later, while the block runs."""
        self.kill()
        back = threading.Timer(seconds, self.start)
        back.start()
        try:
            yield
        finally:
            back.join()


def environment_of(endpoint: str) -> dict[str, str]:
    """The variables with which a process reaches a server, or a proxy in front of it."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def s3_server(folder: Path, host: str = "127.0.0.1") -> Iterator[S3Server]:
    """Start a server with an empty bucket `BUCKET`, and end it after the block. `folder` is an empty one."""
    server = S3Server(*free_ports(1), folder, host)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def reach(endpoint: str) -> Iterator[None]:
    """Let this process and those that it starts use a server, until the end of the block."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in environment_of(endpoint).items():
            patch.setenv(name, value)
        forget_clients()
        yield
    forget_clients()


def forget_clients() -> None:
    """Clients keep the endpoint of the time when they were made."""
    storage.bucket_store.cache_clear()
    parquet._arrow_file_system.cache_clear()
