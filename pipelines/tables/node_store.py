"""Copies of the tables that a stage trains on, on the own disk of each node that trains.

A copy is named after the folder of the stage and the files of the tables, so it is not used after a table was made again. It is
kept until the stage ends. An interrupted stage continues with it, unless another stage has trained on the node meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayError
from upath import UPath

from pipelines.tables.stage_table import StageTable
from pipelines.tables.tasks import on_node
from vgs_ray.data.node_disk import node_folder, one_process, remove_node_folder, remove_unused

REMOVE_S = 60.0


class NodeStore(NamedTuple):
    """A copy of tables on each node.

    Attributes:
        key: names the copy.
        files: files of each table.
    """

    key: str
    files: tuple[list[UPath], ...]

    def open(self, fill: Callable[[Path], None]) -> Path:
        """The folder on this node, after `fill` has written what is missing there. One process of the node fills it.

        Before it makes the folder, it deletes copies that no process uses.
        """
        folder = node_folder(self.key)
        with one_process(folder):
            if not folder.exists():
                remove_unused(folder.parent)
            fill(folder)
        return folder

    def remove(self) -> None:
        """Delete the copies on all nodes. A node that does not answer keeps its copy until the next one is made there."""
        alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        removed = [_remove.options(scheduling_strategy=on_node(node)).remote(self.key) for node in alive]
        for each in removed:
            with suppress(GetTimeoutError, RayError):
                ray.get(each, timeout=REMOVE_S)


@ray.remote(num_cpus=0, max_retries=0)
def _remove(key: str) -> None:
    remove_node_folder(node_folder(key))


def node_store(stage: UPath, *tables: StageTable) -> NodeStore:
    """The copy of complete tables for a stage.

    Args:
        stage: folder of the stage that trains.
        tables: what it reads.
    """
    published = [(str(each.stage), each.published_files()) for table in tables for each in (table, *table.earlier)]
    return NodeStore(json.dumps([str(stage), published]), tuple(table.files() for table in tables))
