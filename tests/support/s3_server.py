"""A real S3 server for tests: moto's, as a process of its own on a free port. It keeps its objects in memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from vgs_ray.data import parquet, storage

BUCKET = "bucket"
SECRET = "a-secret-that-no-file-may-contain"
START_S = 60.0


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        endpoint: its URL.
        process: process id.
    """

    endpoint: str
    process: int

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a process reaches the server."""
        return environment_of(self.endpoint)


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


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def s3_server(log: Path) -> Iterator[S3Server]:
    """Start a server with an empty bucket `BUCKET`, and end it after the block."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            endpoint = f"http://127.0.0.1:{port}"
            _make_bucket(endpoint, process, log)
            yield S3Server(endpoint, process.pid)
        finally:
            process.kill()


def _make_bucket(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            httpx.put(f"{endpoint}/{BUCKET}", timeout=START_S).raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"the S3 server did not start: {log.read_text()[-2000:]}")


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
