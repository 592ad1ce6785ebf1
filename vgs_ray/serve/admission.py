"""Room for beams: searches that find none wait in a bounded queue, first come, first served; the next ones are refused.

In: beams of a search or sequences of a score. Out: a `Place`, or the 429 that says when to come again. Pure asyncio.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from types import TracebackType
from typing import Self

from vgs_ray.serve.errors import ApiError

FIRST_RETRY_S = 5.0
"""What a refused client is told to wait where no search has ended yet, from which one could estimate."""
LONGEST_RETRY_S = 600.0
NEWEST = 0.2
"""Weight of the last search in the running mean of how long searches hold their room."""


class Admission:
    """How many beams run in this process.

    Args:
        most: beams side by side, of all searches. One search alone always fits.
        most_waiting: searches that wait for room.
    """

    def __init__(self, most: int, most_waiting: int) -> None:
        self.most, self.most_waiting = most, most_waiting
        self.running = 0
        self._queue: deque[Place] = deque()
        self._mean_s: float | None = None

    @property
    def waiting(self) -> int:
        """Searches in the queue."""
        return len(self._queue)

    def take(self, beams: int) -> Place:
        """A place for so many beams, with room at once or in the queue.

        Looking and taking are one step: requests that come together would else all find the same room free.

        Raises:
            ApiError: 429, the queue is full.
        """
        place = Place(self, beams)
        if not self._queue and self._fits(beams):
            self._admit(place)
        elif self.waiting < self.most_waiting:
            self._queue.append(place)
            place.position = self.waiting
        else:
            raise ApiError(
                429, f"running beams: {self.running} (at most {self.most}), waiting searches: {self.waiting} (at most "
                f"{self.most_waiting}); a search needs room or a turn in the queue: try again later", None, "overloaded",
                headers={"Retry-After": str(self.retry_s())},
            )  # fmt: skip
        return place

    def retry_s(self) -> int:
        """Whole seconds until those who wait now will have been served, by the mean of the searches that have ended."""
        if self._mean_s is None:
            return math.ceil(FIRST_RETRY_S)
        ahead = self.running + sum(place.beams for place in self._queue)
        return math.ceil(min(max(self._mean_s * ahead / self.most, 1.0), LONGEST_RETRY_S))

    def _fits(self, beams: int) -> bool:
        return not self.running or self.running + beams <= self.most

    def _admit(self, place: Place) -> None:
        self.running += place.beams
        place.began = time.monotonic()
        place.room.set()

    def leave(self, place: Place) -> None:
        """Give back a place's room, or its turn in the queue."""
        if place.began is None:
            self._queue.remove(place)
        else:
            self.running -= place.beams
            held = time.monotonic() - place.began
            self._mean_s = held if self._mean_s is None else (1 - NEWEST) * self._mean_s + NEWEST * held
        # Strictly in turn, also past a large one: small searches would else keep it out for ever.
        while self._queue and self._fits(self._queue[0].beams):
            self._admit(self._queue.popleft())


class Place:
    """A search's room, or its turn in the queue, until the end of a `with` block.

    Attributes:
        beams: how many it is for.
        position: in the queue when it came, from 1; 0 where there was room.
        room: set once they may run.
        began: when that was; None before.
    """

    def __init__(self, admission: Admission, beams: int) -> None:
        self._admission, self.beams = admission, beams
        self.position = 0
        self.room = asyncio.Event()
        self.began: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.leave(self)
