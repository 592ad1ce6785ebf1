"""The batches of a run: which samples each step computes, and this worker's micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vgs_ray.config import Train
from vgs_ray.value.packing import MicroBatch, lay_out
from vgs_ray.value.training.feed import host_batch, row_multiple
from vgs_ray.value.training.loader import Examples, Order
from vgs_ray.value.training.number_of_steps import batch_units
from vgs_ray.value.training.parallel import Worker
from vgs_ray.value.training.partition import Ints, Partition, partition_batch
from vgs_ray.value.training.step import Step
from vgs_ray.value.training.throughput import TrainingFlops


class Batch(NamedTuple):
    """One step's units, (units, sequences per unit) positions of examples, and their partition over the workers."""

    units: Ints
    partition: Partition


class Batches:
    """Batches by step. The partition is the same on every worker; a worker reads only the tokens of its own share.

    Args:
        examples: the training split.
        config: batch size, micro-batch size and loss.
        seed: seed of the order.
        worker: this process.
        flops: FLOPs of the model, by which the workers' shares are balanced.

    Attributes:
        size: units in a batch.
    """

    def __init__(self, examples: Examples, config: Train, seed: int, worker: Worker, flops: TrainingFlops) -> None:
        self._examples, self._config, self._worker, self._flops = examples, config, worker, flops
        self._units = examples.units()
        self._order = Order(examples.group_bounds(self._units, config.group_size), seed)
        self._multiple = row_multiple(config, worker.device)
        self.size = batch_units(config, self._units)

    def batch(self, step: int) -> Batch:
        units = self._units[self._order.batch(step, self.size)]
        lengths = self._examples.lengths[units].astype(np.int64)
        targets = lengths - self._examples.starts[units]
        world, layout, budget = self._worker.world, self._worker.layout, self._config.micro_tokens
        partition = partition_batch(lengths, targets, world, budget, layout, self._flops.ratio, self._multiple)
        return Batch(units, partition)

    def prepare(self, step: int) -> Step:
        """A step with its micro-batches in memory from which they can be copied to the device."""
        batch = self.batch(step)
        micro_batches = [host_batch(micro, self._worker.device) for micro in self.micro_batches(batch)]
        return Step(batch.partition, micro_batches, self.flops(batch))

    def micro_batches(self, batch: Batch) -> Iterator[MicroBatch]:
        """This worker's micro-batches; every worker has the same number."""
        for pack in batch.partition.packs[self._worker.rank]:
            examples = [self._examples.example(int(index)) for index in batch.units[pack].reshape(-1)]
            yield lay_out(examples, self._worker.layout, self._config.loss == "bradley_terry", self._multiple)

    def flops(self, batch: Batch) -> float:
        """FLOPs of a batch over all workers."""
        places = [place for own in batch.partition.packs for pack in own for place in pack]
        return self._flops.of_sequences(self._examples.lengths[batch.units[places]])
