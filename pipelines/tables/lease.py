"""The lease of a run's folder: one process works on a run at a time, and a dead owner loses it.

On a disk, the operating system holds a lock for the owner and releases it when the owner ends. On an object store, the lease is
an object that its owner renews. Another process takes it over when it has seen no renewal for `EXPIRES_S` seconds, or
immediately if the owner ran on the same machine and has ended. Each process uses its own clock only, so clocks of different
machines need not agree. An owner that has lost its lease ends; what it writes until then is refused, because the new owner has
claimed the tables.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import obstore
import psutil
from filelock import FileLock, Timeout
from obstore.exceptions import AlreadyExistsError, PreconditionError
from upath import UPath

from vgs_ray.data.failpoints import failpoint
from vgs_ray.data.files import read_if_exists, write_json
from vgs_ray.data.storage import is_local, object_store

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutResult, UpdateVersion

RENEW_S = 10.0
EXPIRES_S = 60.0
POLL_S = 5.0
END_S = 10.0
"""A process that has lost its lease is interrupted, and killed if it has not ended after so long."""
LEASE, HOLDER = "_lease.json", ".lock_holder"
BOOT, PROCESSES = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")

Owner = dict[str, Any]


@contextmanager
def lease(folder: UPath) -> Iterator[None]:
    """Hold the lease of a folder, and wait while another process holds it, after a line that names it."""
    failpoint("lease.before")
    with _lock_on_disk(folder) if isinstance(folder, Path) else _lease_on_store(folder / LEASE):
        failpoint("lease.taken")
        yield
    failpoint("lease.released")


def this_process() -> Owner:
    """This process, as its leases name it."""
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "process": os.getpid(),
        "since": datetime.now(UTC).isoformat(" ", "seconds"),
        "token": uuid.uuid4().hex,
    }


def _machine() -> str:
    """What processes have in common that see each other's ids; host names may repeat. Empty if the system does not tell."""
    try:
        return f"{BOOT.read_text().strip()} {PROCESSES.readlink()}"
    except OSError:
        return ""


def who(owner: Owner) -> str:
    """The process in words."""
    return f"process {owner.get('process', '?')} on {owner.get('host', '?')}"


def _say_waiting(owner: Owner, folder: UPath) -> None:
    since = owner.get("since", "?")
    print(f"{who(owner)} is working on {folder} since {since}: waiting for it to end", flush=True)


@contextmanager
def _lock_on_disk(folder: Path) -> Iterator[None]:
    lock, named = FileLock(folder / ".lock"), folder / HOLDER
    told = False
    while not lock.is_locked:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if not told:
                _say_waiting(json.loads(named.read_text()) if named.exists() else {}, UPath(folder))
            told = True
            time.sleep(POLL_S)
    try:
        write_json(named, this_process())
        yield
    finally:
        lock.release()


@contextmanager
def _lease_on_store(path: UPath) -> Iterator[None]:
    owner, stop = this_process(), threading.Event()
    version = _acquire(path, owner)
    renewing = threading.Thread(target=_renew, args=(path, owner, version, stop), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        stop.set()
        renewing.join()
        held = _read(path)
        if held and held[0]["token"] == owner["token"]:
            path.unlink(missing_ok=True)


def _acquire(path: UPath, owner: Owner) -> UpdateVersion:
    """Wait until the lease is free or expired, and take it.

    Returns:
        Its version.
    """
    seen: UpdateVersion | None = None
    seen_at = time.monotonic()
    while True:
        owner["since"] = this_process()["since"]
        if version := _put(path, owner, "create"):
            return version
        if not (held := _read(path)):
            continue
        other, version = held
        if other["token"] == owner["token"]:  # the store took an earlier request, and its reply was lost
            return version
        if version != seen:
            if not seen:
                _say_waiting(other, path.parent)
            seen, seen_at = version, time.monotonic()
        elif (silent_s := time.monotonic() - seen_at) > EXPIRES_S or has_ended(other):
            print(f"{who(other)} has ended, or has not renewed its lease for {silent_s:.0f} s", flush=True)
            if taken := _put(path, owner, version):
                return taken
            continue
        time.sleep(POLL_S)


def has_ended(owner: Owner) -> bool:
    """Whether an owner on this machine has ended. False for other machines."""
    if not _machine() or owner["machine"] != _machine():
        return False
    try:
        return psutil.Process(owner["process"]).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def holder(folder: UPath) -> Owner | None:
    """The process that holds the lease of a folder. On a disk it may have ended; then it is the last holder."""
    if is_local(folder):
        text = read_if_exists(folder / HOLDER)
        return dict(json.loads(text)) if text else None
    held = _read(folder / LEASE)
    return held[0] if held else None


def _put(path: UPath, owner: Owner, mode: Literal["create"] | UpdateVersion) -> UpdateVersion | None:
    """Write the lease under a condition: there is none, or it has this version.

    Returns:
        Its new version; None if the condition does not hold.
    """
    try:
        return _version(obstore.put(*object_store(path), json.dumps(owner).encode(), mode=mode))
    except (AlreadyExistsError, PreconditionError, FileNotFoundError):
        return None


def _read(path: UPath) -> tuple[Owner, UpdateVersion] | None:
    """The owner in the lease, and its version; None if there is no lease."""
    try:
        held = obstore.get(*object_store(path))
        return json.loads(bytes(held.bytes())), _version(held.meta)
    except FileNotFoundError:
        return None


def _version(found: PutResult | ObjectMeta) -> UpdateVersion:
    """What an object store compares before it writes: S3 the entity tag, GCS the version (generation)."""
    version: UpdateVersion = {"e_tag": found["e_tag"]}
    if found["version"]:  # obstore takes no None
        version["version"] = found["version"]
    return version


def _renew(path: UPath, owner: Owner, version: UpdateVersion, stop: threading.Event) -> None:
    """Write the lease again from time to time. A lost lease ends the process as Ctrl-C does."""
    while not stop.wait(RENEW_S):
        try:
            renewed = _renewed(path, owner, version)
        except Exception as error:
            print(f"warning: the lease {path} could not be renewed ({type(error).__name__}); trying again", flush=True)
            continue
        if not renewed:
            break
        version = renewed
    else:
        return
    line = (
        f"error: the lease of {path.parent} was not renewed for too long, and another process has taken it over; this process "
        "ends, and no committed row is lost"
    )
    print(line, file=sys.stderr, flush=True)
    main = threading.main_thread().ident
    assert main
    # A signal to the process may reach another thread, and the main one would sleep on.
    signal.pthread_kill(main, signal.SIGINT)
    if not stop.wait(END_S):
        os.kill(os.getpid(), signal.SIGKILL)


def _renewed(path: UPath, owner: Owner, version: UpdateVersion) -> UpdateVersion | None:
    """The new version; None if the lease is lost."""
    failpoint("lease.renewing")
    if new := _put(path, {**owner, "renewed": time.time()}, version):
        return new
    held = _read(path)  # it is ours if the store took an earlier request, and its reply was lost
    return held[1] if held and held[0]["token"] == owner["token"] else None
