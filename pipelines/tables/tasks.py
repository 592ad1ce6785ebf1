"""Ray tasks and actors that work through a list of items, such as batches of problems or row groups of files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.data import Datasink
from ray.data.block import BlockAccessor
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Item = Mapping[str, Any]
Work = Callable[[dict[str, Any]], pa.Table | Iterator[pa.Table]]


def map_items(
    items: Sequence[Item],
    work: Work | type[Any],
    items_per_task: int = 1,
    arguments: Sequence[Any] = (),
    **options: Any,
) -> ray.data.Dataset:
    """Call `work` for each item.

    Args:
        items: values that Arrow can hold, under the same keys in every item.
        work: a function, which runs in tasks, or a class whose instances are called, which runs in actors. It returns a table
            or yields several.
        items_per_task: items that one task or one call of an actor works through.
        arguments: of the class.
        options: of `Dataset.map_batches`, such as `num_cpus` or `compute`.

    Returns:
        The rows of the tables, as a lazy dataset.
    """
    if isinstance(work, type):
        options |= {"fn_constructor_args": (work, *arguments)}
    dataset = ray.data.from_items(list(items), override_num_blocks=max(1, math.ceil(len(items) / items_per_task)))
    each = _Actor if isinstance(work, type) else _each(work)
    return dataset.map_batches(each, batch_format="pyarrow", batch_size=None, **options)


class _Actor:
    def __init__(self, worker: type[Any], *arguments: Any) -> None:
        self._call = _each(worker(*arguments))

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        return self._call(block)


def _each(work: Work) -> Callable[[pa.Table], Iterator[pa.Table]]:
    def call(block: pa.Table) -> Iterator[pa.Table]:
        for item in block.to_pylist():
            result = work(item)
            yield from [result] if isinstance(result, pa.Table) else result

    return call


class _CommitBlocks(Datasink):
    def __init__(self, commit: Callable[[pa.Table], None]) -> None:
        self.commit = commit

    def write(self, blocks: Iterable[Any], ctx: Any) -> None:
        for block in blocks:
            self.commit(BlockAccessor.for_block(block).to_arrow())


def write_dataset(dataset: ray.data.Dataset, commit: Callable[[pa.Table], None], cpus: float = 0.1) -> None:
    """Run a Ray dataset, and call `commit` in a task for each block when it is ready.

    Args:
        dataset: the rows.
        commit: writes a block.
        cpus: of these tasks. If the tasks that make the blocks have as many, Ray makes and commits a block in one task; else it
            keeps about a third of the cluster's CPUs for commits.
    """
    dataset.write_datasink(_CommitBlocks(commit), ray_remote_args={"num_cpus": cpus})


def on_node(node: str) -> NodeAffinitySchedulingStrategy:
    """The scheduling strategy of a task for one node, given by its id."""
    return NodeAffinitySchedulingStrategy(node, soft=False)
