"""Ends a command whose Ray has died. Ray's own clients wait a minute for it, and then end the process without a word.

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

PAUSE_S = 1.0
TRIES = 3
"""So many times in a row GCS has to refuse a connection. One that is only busy does not: the kernel accepts for it."""
CONNECT_S = 1.5
OF_THIS_PROCESS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)
"""Failures to connect that say nothing of the other side: no descriptor or no port is free here."""


@contextmanager
def ends_with_ray(what: str) -> Iterator[None]:
    """End this process while the body runs and Ray dies: the cluster's control store (GCS), or this node's raylet.

    A body that waits on Ray would not hear of an exception, so the process ends at once, with the processes that it started.

    Args:
        what: ends then, such as `the endpoint`.
    """
    here = ray.get_runtime_context()
    node = next(node for node in ray.nodes() if node["NodeID"] == here.get_node_id())
    logs = f"{node['ObjectStoreSocketName'].rsplit('/sockets', 1)[0]}/logs"
    over = threading.Event()
    watch = partial(_watch, here.gcs_address, _raylet(node["RayletSocketName"]), over, what, logs)
    thread = threading.Thread(target=watch, daemon=True, name="ray-watch")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(gcs: str, raylet: psutil.Process | None, over: threading.Event, what: str, logs: str) -> None:
    refused = 0
    while not over.wait(PAUSE_S):
        refused = 0 if accepts(gcs) else refused + 1
        dead = f"its control store (GCS) at {gcs}" if refused == TRIES else ""
        if raylet and not lives(raylet):
            dead = "the raylet of this machine"
        if dead:
            end_now(
                f"error: Ray has died: {dead} does not answer, and {what} has ended with it; start it again (logs: {logs})"
            )


def _raylet(path: str) -> psutil.Process | None:
    """The process that has this socket; None where another user's processes can't be seen."""
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "raylet" and path in " ".join(process.info["cmdline"] or ()):
            return process
    return None


def lives(process: psutil.Process) -> bool:
    """Whether a process runs; one that was killed and whose parent has not asked for its end does not."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def accepts(address: str) -> bool:
    """Whether somebody listens at `host:port`, at whatever it is busy with."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except OSError as error:
        return error.errno in OF_THIS_PROCESS
    return True


def end_now(message: str) -> None:
    """Say so and end this process, and what it started, without waiting for anything."""
    print(message, file=sys.stderr, flush=True)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.kill()
    os._exit(1)
