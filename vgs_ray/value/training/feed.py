"""Micro-batches on their way to the device: prepared by a thread, in one buffer, with one copy.

In: micro-batches of numpy arrays. Out: their tensors on the device. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from vgs_ray.config import Train
from vgs_ray.value.packing import MicroBatch, sequence_bounds

T = TypeVar("T")
ROW_MULTIPLE, ROW_LENGTHS = 1024, 16
"""Packed rows have a length that is a multiple of 1,024 tokens, or of 1/16 of `micro_tokens` if that is less."""


class DeviceBatch(NamedTuple):
    """A micro-batch on the device. Shapes: T target tokens, in row order.

    Attributes:
        input_ids: (rows, length) int32.
        packing: `position_ids`, (rows, length) int32, and the bounds of the sequences, as keyword arguments of transformers'
            flash attention; empty if sequences do not share a row. Without the bounds, each layer would derive them from the
            positions and wait for the device.
        targets: (T,) int32, places of the target tokens in the flattened rows.
        labels: (T,) int32.
        values, weights: (T,) float32.
    """

    input_ids: Tensor
    packing: dict[str, Any]
    targets: Tensor
    labels: Tensor
    values: Tensor
    weights: Tensor


class HostBatch(NamedTuple):
    """A micro-batch in one buffer, pinned if the device is a GPU.

    Attributes:
        buffer: the arrays one after another, (sum of `sizes`,) int32.
        sizes: number of elements of each array: tokens, positions, bounds, targets, labels, values, weights.
        shape: rows and length.
        ids: see `MicroBatch`.
    """

    buffer: Tensor
    sizes: tuple[int, ...]
    shape: tuple[int, ...]
    ids: tuple[str, ...]

    def to(self, device: torch.device) -> DeviceBatch:
        """Copy the buffer, without waiting for the copy."""
        parts = self.buffer.to(device, non_blocking=True).split(self.sizes)
        ids, positions, bounds, targets, labels, values, weights = parts
        packing: dict[str, Any] = {}
        if len(bounds):
            longest = self.shape[1]  # an upper bound; the longest sequence would have many lengths
            packing = {
                "position_ids": positions.view(self.shape),
                "cu_seq_lens_q": bounds,
                "cu_seq_lens_k": bounds,
                "max_length_q": longest,
                "max_length_k": longest,
            }
        floats = (part.view(torch.float32) for part in (values, weights))
        return DeviceBatch(ids.view(self.shape), packing, targets, labels, *floats)


def host_batch(micro: MicroBatch, device: torch.device) -> HostBatch:
    """A micro-batch in memory from which it can be copied to the device."""
    targets = np.flatnonzero(micro.weights).astype(np.int32)
    packing = [micro.position_ids, sequence_bounds(micro.position_ids)] if micro.packed else [np.empty(0, np.int32)] * 2
    at_targets = [column.reshape(-1)[targets] for column in (micro.labels, micro.values, micro.weights)]
    parts = [part.reshape(-1).view(np.int32) for part in (micro.input_ids, *packing, targets, *at_targets)]
    buffer = torch.from_numpy(np.concatenate(parts))
    pinned = buffer.pin_memory() if device.type == "cuda" else buffer
    return HostBatch(pinned, tuple(map(len, parts)), micro.input_ids.shape, micro.ids)


def row_multiple(config: Train, device: torch.device) -> int:
    """The length of a packed row is a multiple of it. Uncompiled code on a CPU gains nothing from few lengths."""
    if device.type == "cpu" and not config.compile:
        return 1
    return max(1, min(ROW_MULTIPLE, config.micro_tokens // ROW_LENGTHS))


def to_device(micro: MicroBatch, device: torch.device) -> DeviceBatch:
    """The tensors of a micro-batch."""
    return host_batch(micro, device).to(device)


def ahead(items: Iterator[T], device: torch.device) -> Iterator[T]:
    """The items; a thread makes the next one while the caller works on one. None ends them.

    Args:
        items: made in the thread.
        device: device for which the thread pins memory.
    """
    with ThreadPoolExecutor(1, "micro-batches") as pool:
        if device.index:  # a thread starts with the first GPU, and pinning would reserve memory there
            pool.submit(torch.cuda.set_device, device)
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
