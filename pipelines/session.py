"""The Ray session of a command, and its terminal output: logs go to files, and a progress bar shows the state."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import ray
from ray.util.annotations import RayDeprecationWarning
from tqdm import tqdm

from pipelines.serving.ingress import haproxy_in_front
from pipelines.tables.shared_folder import check_shared
from vgs_ray.config import Serve
from vgs_ray.data.storage import AnyPath

UPDATE_S = 0.5
COUNTING_SHARE = 0.05
"""Largest share of the time in which the progress bar counts; to count rows in storage takes seconds if there are many parts."""
DEFAULT_SERVE = Serve()
"""For sessions without an endpoint, or with the default address and limits."""


@contextmanager
def ray_session(serve: Serve = DEFAULT_SERVE, folder: AnyPath | None = None) -> Iterator[None]:
    """Connect to the cluster that the environment names, as in a Ray job, or start a local one. An open session is reused.

    Args:
        serve: address of the endpoint that this session may start, and the limits of its clients.
        folder: folder that the workers read and write.

    Raises:
        UserError: a node of the cluster does not share the folder.
    """
    if ray.is_initialized():
        if folder:
            check_shared(folder)
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    local = {} if os.environ.get("RAY_ADDRESS") else {"address": "local", "include_dashboard": False}
    with haproxy_in_front(serve) if local else nullcontext():  # processes that Ray starts here inherit the environment
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
    """Send the standard error of Ray's C++ threads to a file, because it would break the progress bar."""
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
    """The folder of the worker logs of this session."""
    return f"{ray.nodes()[0]['ObjectStoreSocketName'].rsplit('/sockets', 1)[0]}/logs"


def _quiet_ray_data() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    warnings.filterwarnings("ignore", category=RayDeprecationWarning)  # Ray Data uses deprecated arguments itself
    for name in ("ray.data", "ray.train", "ray.serve", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def progress(
    name: str,
    total: int | None,
    count: Callable[[], int],
    unit: str = "row",
    note: Callable[[], str] | None = None,
    bar_format: str | None = None,
) -> Iterator[None]:
    """Show a progress bar while the body runs.

    Args:
        name: name of the stage.
        total: final count; None shows the elapsed time and the note only.
        count: gives the present count.
        unit: what is counted.
        note: gives a text after the bar.
        bar_format: tqdm's `bar_format`, if there is a total.
    """
    on_terminal = sys.stderr.isatty()
    with tqdm(
        total=total, desc=f"{name:<9}", unit=unit, ncols=100, leave=False, mininterval=0.5 if on_terminal else 10,
        bar_format=bar_format if total else "{desc}: {elapsed}  {postfix}",
    ) as bar:  # fmt: skip
        stop = threading.Event()
        bar.n = bar.initial = count()

        def update() -> None:
            if note:
                bar.set_postfix_str(note(), refresh=False)
            bar.update(count() - bar.n)
            if on_terminal:
                bar.refresh()

        def follow() -> None:
            pause = UPDATE_S
            while not stop.wait(pause):
                began = time.monotonic()
                try:
                    update()
                except BrokenPipeError:  # standard error is closed, and tqdm has raised while it held its lock
                    bar.disable = True
                    tqdm.get_lock().release()
                    return
                pause = max(UPDATE_S, (time.monotonic() - began) / COUNTING_SHARE)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            bar.update(count() - bar.n)
