"""What workers of a simulated cluster do: they note on which group of nodes they run, and their engines are scripted."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ray

from vgs_ray import engines
from vgs_ray.engines import Engines
from vgs_ray.engines.random_value import RandomValue

if TYPE_CHECKING:
    from scripted_command import RandomPolicy

PLACES = "VGS_TEST_PLACES"
"""Environment variable with the folder of the notes."""
WORKER, POLICY, VALUE, TRAINER = "worker", "policy", "value", "trainer"
HOLDERS = (POLICY, VALUE, TRAINER)


class Note(NamedTuple):
    """A worker process, an engine or a training worker.

    Attributes:
        kind: which of these.
        group: of its node.
        node: its id.
        gpus: that Ray gave to the process.
        worker: id of the process.
    """

    kind: str
    group: str
    node: str
    gpus: int
    worker: str


def note(kind: str) -> None:
    """Write a note of this process."""
    context = ray.get_runtime_context()
    gpus = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    group = os.environ.get("RAY_NODE_TYPE_NAME", "head")
    words = Note(kind, group, context.get_node_id(), len(gpus), context.get_worker_id())
    (Path(os.environ[PLACES]) / " ".join([*map(str, words), uuid.uuid4().hex])).touch()


def read_notes(folder: Path) -> list[Note]:
    words = [path.name.split() for path in folder.iterdir()]
    return [Note(kind, group, node, int(gpus), worker) for kind, group, node, gpus, worker, _ in words]


def job_variables(address: str) -> dict[str, str]:
    """Environment of a command on a cluster whose workers call `install`, as Ray's job server sets it."""
    hook = {"runtime_env": {"worker_process_setup_hook": "placed_workers.install"}}
    return {"RAY_ADDRESS": address, "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(hook), "RAY_AUTH_MODE": "disabled"}


def install() -> None:
    """Hook of worker processes."""
    note(WORKER)
    engines.build_policy, engines.build_value, engines.build_engines = scripted_policy, scripted_value, scripted_engines


def train_on_cpu(config: dict[str, Any]) -> str:
    """`train_worker` on a node whose GPUs are only numbers."""
    import ray.train.torch
    import torch

    from pipelines.actors.training import train_worker

    note(TRAINER)
    ray.train.torch.get_device = lambda: torch.device("cpu")
    return train_worker(config)


def scripted_policy(*_: Any, **__: Any) -> RandomPolicy:
    from scripted_command import RandomPolicy

    note(POLICY)
    return RandomPolicy()


def scripted_value(*_: Any) -> RandomValue:
    note(VALUE)
    return RandomValue()


def scripted_engines(*_: Any) -> Engines:
    return Engines(scripted_policy(), scripted_value())
