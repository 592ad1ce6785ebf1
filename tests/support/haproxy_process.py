"""HAProxy in front of a server, with a configuration that `vgs-haproxy` patches."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.serving.haproxy_config import ADDRESS_LIMIT, REQUEST_TIMEOUT
from pipelines.serving.ingress import PROGRAM, free_ports

DEADLINE_S = 1.5
"""Time in which a request must arrive, if a test names no other."""
CONFIG = """
global
    maxconn 4096
    nbthread 2
    tune.bufsize 16384
defaults
    mode http
    timeout connect 1s
    timeout client {unread}s
    option abortonclose
    option splice-request
    errorfile 503 {folder}/500.http
frontend http_frontend
    bind *:{port}
    default_backend app
backend app
    http-reuse always
    server app 127.0.0.1:{behind}
"""


@contextmanager
def haproxy(
    folder: Path, behind: str, per_address: int = 3000, deadline_s: float = DEADLINE_S, unread_s: int = 1
) -> Iterator[int]:
    """The port of HAProxy in front of a server."""
    [port] = free_ports(1)
    (folder / "haproxy.cfg").write_text(
        CONFIG.format(folder=folder, port=port, behind=behind.rpartition(":")[2], unread=unread_s)
    )
    limits = {
        REQUEST_TIMEOUT: str(deadline_s),
        ADDRESS_LIMIT: str(per_address),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(unread_s),
    }
    program = [str(Path(sys.executable).with_name(PROGRAM)), "-db", "-f", str(folder / "haproxy.cfg")]
    with subprocess.Popen(program, env={**os.environ, **limits}, stderr=subprocess.PIPE) as process:
        try:
            for _ in range(200):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
