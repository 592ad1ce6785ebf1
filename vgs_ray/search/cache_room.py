"""Admission of searches by what the prefix caches of their engines hold.

A search extends prefixes by blocks, and both engines read the prefix of each block unless it is still in their caches, which
evict what was used the longest time ago. If the prefixes and the current blocks of all running searches do not fit, almost
every prefix is read again for each block. So a `CacheRoom` starts parts of searches, such as beam groups, as far as they fit.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

IN_FLIGHT = 2
"""Maximum number of sequences of the admitted parts for each one in a batch; some wait for the others of their part."""
GROWING = 0.75
"""Share of the tokens that a part samples at the moment that counts. Half of them are there on average, but parts that start at
the same time also end at the same time (bench/admission.py)."""
SMOOTHING = 0.1
"""Weight of the latest part in the moving average of what parts of a kind need."""


class Room(Protocol):
    """Admits the parts of a search."""

    def enter(self, kind: Hashable, sequences: int, most: float) -> AbstractAsyncContextManager[Hold]:
        """Wait for room, and hold it until the end of the `with` block.

        Args:
            kind: parts of the same kind are expected to need the same.
            sequences: number of sequences that the part samples at the same time.
            most: number of tokens that it can need, of which those that it samples count by `GROWING`.
        """
        ...


class CacheRoom(Room):
    """Admits parts of searches in the order of their arrival, as far as their tokens fit.

    A part reserves what parts of its kind needed on average, or the most that it can need if that is less or none has ended. A
    part that does not fit alone runs alone.

    Args:
        tokens: number of tokens that the prefix cache of each engine holds.
        batch: number of sequences that the policy extends at the same time.

    Attributes:
        held: reserved tokens.
        running: number of running parts.
        means: what parts of a kind needed on average.
    """

    def __init__(self, tokens: float = math.inf, batch: float = math.inf) -> None:
        self.tokens, self.batch = tokens, batch
        self.held, self.running = 0.0, 0
        self.means: dict[Hashable, float] = {}
        self._turn = asyncio.Lock()  # granted in the order of requests
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def enter(self, kind: Hashable, sequences: int, most: float) -> AsyncIterator[Hold]:
        # Parts with short sequences reserve more than they need, such that they do not queue up in the policy's engine.
        least = self.tokens * sequences / (IN_FLIGHT * self.batch) if max(self.tokens, self.batch) < math.inf else 0.0
        hold = Hold(self, kind, least)
        async with self._turn:
            while self.running and self.held + hold.expected(most) > self.tokens:
                self._changed.clear()
                await self._changed.wait()
            self.running += 1
            hold.needs(0.0, most)
        try:
            yield hold
            mean = self.means.get(kind, most)
            self.means[kind] = mean + SMOOTHING * (hold.peak - mean)
        finally:
            self.running -= 1
            self.reserve(-hold.reserved)

    def reserve(self, tokens: float) -> None:
        """Reserve tokens, or give back a negative number of them."""
        self.held += tokens
        self._changed.set()


class Hold:
    """What a running part of a search has reserved.

    Attributes:
        reserved: tokens.
        peak: the most that it needed.
    """

    def __init__(self, room: CacheRoom, kind: Hashable, least: float) -> None:
        self._room, self._kind, self._least = room, kind, least
        self.reserved, self.peak = 0.0, 0.0

    def expected(self, most: float) -> float:
        """Tokens that a part will need, if it can need `most`."""
        return max(min(self._room.means.get(self._kind, most), most), self._least)

    def needs(self, tokens: float, most: float) -> None:
        """Reserve for a part that needs `tokens` now and can need `most` from now on. It never waits."""
        self.peak = max(self.peak, tokens)
        reserved = max(tokens, self.expected(most))
        self._room.reserve(reserved - self.reserved)
        self.reserved = reserved
