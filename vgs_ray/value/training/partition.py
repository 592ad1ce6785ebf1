"""Who computes what in one step: a batch's sequences to workers and micro-batches. Pure numpy.

In: lengths of a whole batch, the same on every worker. Out: for each worker its micro-batches. Every worker makes the same
plan without a word to the others, and all of them get the same number of micro-batches, so that their collective
operations pair up.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vgs_ray.value.packing import Layout

Ints = NDArray[np.int64]


class Partition(NamedTuple):
    """One step over all workers. A *unit* is what can't be divided: a sequence, or a pair that is ranked.

    Attributes:
        packs: for each worker its micro-batches, each a list of positions in the batch; a worker that has fewer than the
            others has empty ones.
        units: units of the batch, over which the loss is a mean.
        tokens: in all forward passes, without padding.
        padded: the same with padding.
    """

    packs: list[list[list[int]]]
    units: int
    tokens: int
    padded: int

    @property
    def padding(self) -> float:
        """Share of the forwarded positions that hold no token."""
        return 1 - self.tokens / self.padded if self.padded else 0.0


def partition_batch(
    lengths: Ints, targets: Ints, world: int, budget: int, layout: Layout, attention: float = 0.0
) -> Partition:
    """Divide a batch among workers by cost, then each worker's share into micro-batches.

    A unit without a target is in no micro-batch. It counts in the mean, as a loss of 0: so does the published code.

    Args:
        lengths: (units, sequences of a unit) tokens.
        targets: the same shape; tokens with a target.
        world: workers.
        budget: tokens of a micro-batch, padding included; a longer unit is alone in one.
        layout: see `vgs_ray.value.packing`.
        attention: cost of one token's attention to one earlier token, relative to the rest of the token's cost.
    """
    kept = np.flatnonzero((targets > 0).all(1))
    whole = lengths[kept]
    shares = share((whole * (1 + attention * whole)).sum(1), world)
    if layout == "packed":
        packs = [fill(whole.sum(1)[mine], budget) for mine in shares]
    else:
        packs = [bucket(whole.max(1)[mine], budget // whole.shape[1]) for mine in shares]
    most = max(map(len, packs))
    named = [
        [[int(kept[mine[place]]) for place in pack] for pack in own] + [[]] * (most - len(own))
        for mine, own in zip(shares, packs, strict=True)
    ]
    area = [_area(lengths[pack], layout) for own in named for pack in own]
    return Partition(named, len(lengths), int(whole.sum()), sum(area))


def share(costs: NDArray[np.float64], world: int) -> list[Ints]:
    """Positions for each worker: the costliest first, each to the worker that has least to do."""
    loads, owned = [(0.0, rank) for rank in range(world)], [[] for _ in range(world)]  # type: ignore[var-annotated]
    for place in np.argsort(-costs, kind="stable"):
        load, rank = heapq.heappop(loads)
        owned[rank].append(place)
        heapq.heappush(loads, (load + float(costs[place]), rank))
    return [np.sort(np.array(mine, np.int64)) for mine in owned]


def fill(lengths: Ints, budget: int) -> list[list[int]]:
    """Best fit, longest first: each length goes where it leaves the least room."""
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


def bucket(lengths: Ints, budget: int) -> list[list[int]]:
    """Sequences of like length together, so that rows times the longest row stays within the budget."""
    packs: list[list[int]] = []
    for place in np.argsort(lengths, kind="stable"):
        if not packs or (len(packs[-1]) + 1) * lengths[place] > budget:
            packs.append([])
        packs[-1].append(int(place))
    return packs


def _area(lengths: Ints, layout: Layout) -> int:
    """Positions that a micro-batch forwards."""
    if not len(lengths):
        return 1
    return int(lengths.sum() if layout == "packed" else lengths.size * lengths.max())
