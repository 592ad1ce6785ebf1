"""The Ray session of a command. Logs of Ray and of its workers go to files."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import ray
from ray.util.annotations import RayDeprecationWarning

from pipelines.placement import DATA_CPUS, NodeNeed, check_nodes, use_nodes
from pipelines.serving.ingress import haproxy_in_front
from pipelines.tables.shared_folder import check_shared
from vgs_ray.config import Serve
from vgs_ray.data.storage import AnyPath

DEFAULT_SERVE = Serve()
"""For sessions without an endpoint, or with the default address and limits."""
FOOTER_READERS = "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS"
"""Ray Data starts 32 actors to read the footers of Parquet files. One reads 128 at a time, which is enough on one machine."""


@contextmanager
def ray_session(
    serve: Serve = DEFAULT_SERVE, folder: AnyPath | None = None, nodes: tuple[str, ...] = ()
) -> Iterator[None]:
    """Connect to the cluster that the environment names, as in a Ray job, or start a local one. An open session is reused.

    Args:
        serve: address of the endpoint that this session may start, and the limits of its clients.
        folder: folder that the workers read and write.
        nodes: labels of the nodes for Ray Data's tasks and those of `stage_options`.

    Raises:
        UserError: a node of the cluster does not share the folder, or none has the labels.
    """
    if ray.is_initialized():
        _prepare(folder, nodes)
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    local = {} if os.environ.get("RAY_ADDRESS") else {"address": "local", "include_dashboard": False}
    if local:
        os.environ.setdefault(FOOTER_READERS, "1")
    with haproxy_in_front(serve) if local else nullcontext():  # processes that Ray starts here inherit the environment
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **local)
        _quiet_ray_data()
        print(f"engine and worker logs: {logs()}", flush=True)
        with _native_stderr_to(f"{logs()}/driver.err"):
            try:
                _prepare(folder, nodes)
                yield
            finally:
                ray.shutdown()


def _prepare(folder: AnyPath | None, nodes: tuple[str, ...]) -> None:
    use_nodes(nodes)
    if nodes:
        check_nodes(NodeNeed("this command", DATA_CPUS, 0.0, nodes))
    if folder:
        check_shared(folder)


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
