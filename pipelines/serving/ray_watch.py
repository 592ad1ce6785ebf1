"""End a command when its Ray dies. Ray's own clients wait for a minute and then end the process without a message.

In: an open Ray session. Out: one line on standard error, and exit code 1.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import psutil
import ray

INTERVAL_S = 1.0
MAX_REFUSALS = 3
"""Number of consecutive connections that GCS must refuse to count as dead. The kernel accepts connections for a busy GCS."""
CONNECT_S = 1.5
LOCAL_ERRORS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)
"""Connection errors of this process: it has no free descriptor or port. They say nothing about the other side."""


@contextmanager
def ends_with_ray(name: str) -> Iterator[None]:
    """End this process if Ray dies while the body runs: the cluster's control store (GCS), or the raylet of this node.

    The process and its children end at once, because a body that waits for Ray would not receive an exception.

    Args:
        name: what ends, for the message, such as `the endpoint`.
    """
    context = ray.get_runtime_context()
    node = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    logs = f"{node['ObjectStoreSocketName'].rsplit('/sockets', 1)[0]}/logs"
    stopped = threading.Event()
    watch = partial(_watch, context.gcs_address, _raylet(node["RayletSocketName"]), stopped, name, logs)
    thread = threading.Thread(target=watch, daemon=True, name="ray-watch")
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _watch(gcs: str, raylet: psutil.Process | None, stopped: threading.Event, name: str, logs: str) -> None:
    refusals = 0
    while not stopped.wait(INTERVAL_S):
        refusals = 0 if accepts(gcs) else refusals + 1
        dead = f"its control store (GCS) at {gcs}" if refusals == MAX_REFUSALS else ""
        if raylet and not lives(raylet):
            dead = "the raylet of this machine"
        if dead:
            exit_now(
                f"error: Ray has died: {dead} does not answer, and {name} has ended with it; start it again (logs: {logs})"
            )


def _raylet(socket_path: str) -> psutil.Process | None:
    """The raylet with this socket; None if it is another user's process, which can be invisible."""
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "raylet" and socket_path in " ".join(process.info["cmdline"] or ()):
            return process
    return None


def lives(process: psutil.Process) -> bool:
    """Whether a process runs. A zombie does not."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def accepts(address: str) -> bool:
    """Whether a process listens at `host:port`, even if it is busy."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except OSError as error:
        return error.errno in LOCAL_ERRORS
    return True


def exit_now(message: str) -> None:
    """Print the message and end this process and its children at once."""
    print(message, file=sys.stderr, flush=True)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.kill()
    os._exit(1)
