"""The lease of a run's folder: one process works on a run at a time, and a dead owner loses it.

On a disk, the operating system holds a lock for the owner and releases it when the owner ends. On an object store, the lease is
an object that its owner renews. Another process takes it over when it has seen no renewal for `EXPIRES_S` seconds; it compares
its own clock only, so clocks of different machines need not agree.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import obstore
import psutil
from filelock import FileLock, Timeout
from obstore.exceptions import AlreadyExistsError, PreconditionError
from tqdm import tqdm
from upath import UPath

from vgs_ray.data.files import write_json
from vgs_ray.data.storage import object_store

RENEW_S = 10.0
EXPIRES_S = 60.0
POLL_S = 5.0
LEASE = "_lease.json"


@contextmanager
def lease(folder: UPath) -> Iterator[None]:
    """Hold the lease of a folder, and wait while another process holds it, after a line that names it."""
    with _lock_on_disk(folder) if isinstance(folder, Path) else _lease_on_store(folder / LEASE):
        yield


def _owner() -> dict[str, Any]:
    return {"host": socket.gethostname(), "process": os.getpid(), "since": datetime.now(UTC).isoformat(" ", "seconds")}


def _say_waiting(owner: dict[str, Any], folder: UPath) -> None:
    who = f"process {owner.get('process', '?')} on {owner.get('host', '?')}"
    tqdm.write(f"{who} is working on {folder} since {owner.get('since', '?')}: waiting for it to end")


@contextmanager
def _lock_on_disk(folder: Path) -> Iterator[None]:
    lock, holder = FileLock(folder / ".lock"), folder / ".lock_holder"
    told = False
    while not lock.is_locked:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if not told:
                _say_waiting(json.loads(holder.read_text()) if holder.exists() else {}, UPath(folder))
            told = True
            time.sleep(POLL_S)
    try:
        write_json(holder, _owner())
        yield
    finally:
        lock.release()


@contextmanager
def _lease_on_store(path: UPath) -> Iterator[None]:
    tag, stop = _acquire(path), threading.Event()
    renewing = threading.Thread(target=_renew, args=(path, tag, stop), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        stop.set()
        renewing.join()
        with suppress(FileNotFoundError):
            path.unlink()


def _acquire(path: UPath) -> str:
    """Wait until the lease is free or expired, and take it.

    Returns:
        Its entity tag.
    """
    store, key = object_store(path)
    seen, seen_at = "", time.monotonic()
    while True:
        content = json.dumps(_owner()).encode()
        try:
            return str(obstore.put(store, key, content, mode="create")["e_tag"])
        except AlreadyExistsError:
            pass
        try:
            held = obstore.get(store, key)
            owner, tag = json.loads(bytes(held.bytes())), str(held.meta["e_tag"])
        except FileNotFoundError:
            continue
        if tag != seen:
            if not seen:
                _say_waiting(owner, path.parent)
            seen, seen_at = tag, time.monotonic()
        elif time.monotonic() - seen_at > EXPIRES_S or _is_dead(owner):
            with suppress(PreconditionError, FileNotFoundError):  # another process was faster
                return str(obstore.put(store, key, content, mode={"e_tag": tag})["e_tag"])
        time.sleep(POLL_S)


def _is_dead(owner: dict[str, Any]) -> bool:
    """Whether an owner on this machine has ended."""
    return owner["host"] == socket.gethostname() and not psutil.pid_exists(owner["process"])


def _renew(path: UPath, tag: str, stop: threading.Event) -> None:
    """Write the lease again from time to time. A lost lease ends the process as Ctrl-C does."""
    store, key = object_store(path)
    owner = json.loads(path.read_text())
    while not stop.wait(RENEW_S):
        content = json.dumps({**owner, "renewed": time.time()}).encode()
        try:
            tag = str(obstore.put(store, key, content, mode={"e_tag": tag})["e_tag"])
        except (PreconditionError, FileNotFoundError):
            tqdm.write(
                f"error: another process has taken over {path.parent}, because the lease was not renewed in time"
            )
            os.kill(os.getpid(), 2)
            return
        except Exception as error:
            tqdm.write(f"warning: the lease {path} could not be renewed ({type(error).__name__}); trying again")
