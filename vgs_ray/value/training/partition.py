"""Partition of a batch: which worker computes which sequences, and in which micro-batches. Pure numpy.

In: the lengths of a whole batch, the same on every worker. Out: the micro-batches of each worker. Every worker computes the same
partition without communication, and all workers get the same number of micro-batches, so that their collectives match.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vgs_ray.value.packing import Layout, bucket_by_length, row_shape

Ints = NDArray[np.int64]


class Partition(NamedTuple):
    """A batch divided among all workers. A *unit* is one sequence, or one pair of sequences for a ranking loss.

    Attributes:
        packs: for each worker its micro-batches, each a list of positions in the batch; a worker with fewer micro-batches than
            the others gets empty ones.
        units: units in the batch, the denominator of the loss.
        tokens: tokens in all forward passes, without padding.
        padded: tokens in all forward passes, with padding.
    """

    packs: list[list[list[int]]]
    units: int
    tokens: int
    padded: int

    @property
    def padding(self) -> float:
        """Share of padding in all forward passes."""
        return 1 - self.tokens / self.padded if self.padded else 0.0


def partition_batch(
    lengths: Ints, targets: Ints, world: int, budget: int, layout: Layout, attention: float = 0.0, multiple: int = 1
) -> Partition:
    """Balance a batch over the workers by cost, then divide each worker's share into micro-batches.

    A unit without target tokens is in no micro-batch but counts in the denominator with a loss of 0, as in the published code.

    Args:
        lengths: (units, sequences per unit) tokens of each sequence.
        targets: (units, sequences per unit) target tokens of each sequence.
        world: number of workers.
        budget: tokens of a micro-batch, padding included; a longer unit gets a micro-batch of its own.
        layout: see `vgs_ray.value.packing`.
        attention: cost of attending to one token, relative to the other cost of a token.
        multiple: the length of a packed row is a multiple of it; a full micro-batch is longer than the budget if that is not.
    """
    kept = np.flatnonzero((targets > 0).all(1))
    sizes = lengths[kept]
    shares = balance((sizes * (1 + attention * sizes)).sum(1), world)
    if layout == "packed":
        packs = [best_fit(sizes.sum(1)[share], budget) for share in shares]
    else:
        packs = [bucket_by_length(sizes.max(1)[share], budget // sizes.shape[1]) for share in shares]
    most = max(map(len, packs))
    positions = [
        [[int(kept[share[place]]) for place in pack] for pack in own] + [[]] * (most - len(own))
        for share, own in zip(shares, packs, strict=True)
    ]
    padded = sum(math.prod(row_shape(lengths[pack].reshape(-1), layout, multiple)) for own in positions for pack in own)
    return Partition(positions, len(lengths), int(sizes.sum()), padded)


def balance(costs: NDArray[np.float64], world: int) -> list[Ints]:
    """Positions for each worker: in descending order of cost, each to the worker with the lowest load."""
    loads = [(0.0, rank) for rank in range(world)]
    shares: list[list[int]] = [[] for _ in range(world)]
    for place in np.argsort(-costs, kind="stable"):
        load, rank = heapq.heappop(loads)
        shares[rank].append(place)
        heapq.heappush(loads, (load + float(costs[place]), rank))
    return [np.sort(np.array(share, np.int64)) for share in shares]


def best_fit(lengths: Ints, budget: int) -> list[list[int]]:
    """Best-fit decreasing bin packing: each length goes to the pack with the least room that still holds it."""
    packs: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, pack), sorted
    for place in np.argsort(-lengths, kind="stable"):
        length = int(lengths[place])
        at = bisect_left(rooms, (length, -1))
        if at == len(rooms):
            packs.append([])
            room, pack = budget, len(packs) - 1
        else:
            room, pack = rooms.pop(at)
        packs[pack].append(int(place))
        insort(rooms, (room - length, pack))
    return packs
