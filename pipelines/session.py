"""Ray for one command, and what a person sees of it: a quiet start, a moving line, logs in files."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import ray
from ray.util.annotations import RayDeprecationWarning
from tqdm import tqdm

from pipelines.serving.ingress import haproxy_in_front
from pipelines.tables.shared_folder import check_shared
from vgs_ray.config import Serve

ANY = Serve()
"""Of a session on which no endpoint listens, or one with the default address and limits."""


@contextmanager
def ray_session(serve: Serve = ANY, folder: Path | None = None) -> Iterator[None]:
    """Connect to the cluster that the environment names (as in a Ray job), or start a local one; reuse an open one.

    Args:
        serve: where an endpoint on this session would listen, and the limits of its clients.
        folder: that the session's work writes and reads.

    Raises:
        UserError: a node of the cluster doesn't see that folder.
    """
    if ray.is_initialized():
        if folder:
            check_shared(folder)
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    local = {} if os.environ.get("RAY_ADDRESS") else {"address": "local", "include_dashboard": False}
    with haproxy_in_front(serve) if local else nullcontext():  # what Ray starts on this machine has our environment
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **local)
        _quiet_ray_data()
        print(f"engine and worker logs: {logs()}", flush=True)
        with _native_stderr_to(f"{logs()}/driver.err"):
            try:
                if folder:
                    check_shared(folder)
                yield
            finally:
                ray.shutdown()


@contextmanager
def _native_stderr_to(path: str) -> Iterator[None]:
    """Send what Ray's C++ threads write to standard error into a file: it would break the progress line."""
    python_stderr, terminal = sys.stderr, os.dup(2)
    with open(path, "a") as file, open(terminal, "w", buffering=1, closefd=False) as stream:
        os.dup2(file.fileno(), 2)
        sys.stderr = stream if python_stderr is sys.__stderr__ else python_stderr
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            sys.stderr = python_stderr


def logs() -> str:
    """The folder of this session's worker logs."""
    return f"{ray.nodes()[0]['ObjectStoreSocketName'].rsplit('/sockets', 1)[0]}/logs"


def _quiet_ray_data() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    warnings.filterwarnings("ignore", category=RayDeprecationWarning)  # Ray Data warns of what it passes to itself
    for name in ("ray.data", "ray.train", "ray.serve", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def progress(
    what: str,
    total: int | None,
    count: Callable[[], int],
    unit: str = "row",
    note: Callable[[], str] | None = None,
    shape: str | None = None,
) -> Iterator[None]:
    """Show a bar that follows `count()` while the body runs, with a note behind it; it moves also while engines start.

    Without a total there is only the time and the note; `shape` is another format of the line, in tqdm's terms.
    """
    on_terminal = sys.stderr.isatty()
    shape = shape if total else "{desc}: {elapsed}  {postfix}"
    pause_s = 0.5 if on_terminal else 10
    with tqdm(
        total=total, desc=f"{what:<9}", unit=unit, ncols=100, leave=False, mininterval=pause_s, bar_format=shape
    ) as bar:
        stop = threading.Event()
        bar.n = bar.initial = count()

        def follow() -> None:
            while not stop.wait(0.5):
                if note:
                    bar.set_postfix_str(note(), refresh=False)
                bar.update(count() - bar.n)
                if on_terminal:
                    bar.refresh()

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            bar.update(count() - bar.n)
